//! Vocabulary shared by all layers.
#![no_std]
