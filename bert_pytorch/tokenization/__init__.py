"""Tokenization: text to ids of a WordPiece vocabulary, and the training of such a vocabulary."""
