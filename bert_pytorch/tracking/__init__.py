"""What a run tells about itself: metrics files, TensorBoard, the console log and the progress line."""
