//! Namespaces and cgroups.
#![no_std]
