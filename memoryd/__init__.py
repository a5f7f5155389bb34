"""memoryd: a memory service for RAG applications."""

__version__ = "0.1.0"
