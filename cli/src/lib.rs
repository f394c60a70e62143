//! `quintet`, the host command, as a library.
