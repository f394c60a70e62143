//! Hardware abstraction.
#![no_std]
