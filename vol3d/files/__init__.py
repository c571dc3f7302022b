"""The only room that opens files. Everything it writes appears whole or not at all."""
