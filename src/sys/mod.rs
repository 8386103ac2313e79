//! System calls, one concern per file.
