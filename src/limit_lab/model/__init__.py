"""The base models: MPT, loading, answering and export."""
