//! Module 5: networking.
#![no_std]
