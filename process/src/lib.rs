//! Processes.
#![no_std]
