//! The kernel binary: boot order and registration only.
#![cfg_attr(target_os = "none", no_std, no_main)]
#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod panic;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the kernel is built for x86_64-unknown-none: cargo xtask run");
}
