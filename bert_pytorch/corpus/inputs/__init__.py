"""Files of many kinds to the text of documents: what a file is, how it is unpacked, decoded, divided and read."""
