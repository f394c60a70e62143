//! Module 4: inter-process communication.
#![no_std]
