//! Module 2: memory management.
#![no_std]
