"""Bytes that lie elsewhere: HTTP and S3, fetched whole and verified, never half."""
