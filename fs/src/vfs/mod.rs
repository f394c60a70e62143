//! The virtual file system: names, mounts, and the operations of system calls on paths.

pub(crate) mod acl;
pub mod advice;
pub mod attributes;
pub mod change;
pub mod create;
pub mod dentry;
mod directory;
pub mod exec;
pub mod handle;
pub mod mount;
pub mod open;
pub mod path;
pub mod permission;
pub mod pseudo;
pub mod regular;
pub mod rename;
pub mod superblock;
pub mod walk;
pub mod xattrs;
