//! Linux's binary interface.
#![no_std]
