//! IP address management without I/O.
