"""Where corpora, vocabularies and weights can be had from."""
