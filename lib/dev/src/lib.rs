//! Device traits.
#![no_std]
