//! Module 1: process scheduling.
#![no_std]
