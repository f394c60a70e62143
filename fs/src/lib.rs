//! Module 3: file systems.
#![no_std]
