"""Columnar files, Parquet and Arrow: one column of text read without the others; files are hostile until checked."""
