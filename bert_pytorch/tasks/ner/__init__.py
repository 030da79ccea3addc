"""Named entities: CoNLL files, tag schemes, windows of long sentences, scores by entity."""
