//! ext4, and with it ext2 and ext3.
//!
//! The layout, from the outside in: the [`superblock`] says how large everything is; block [`group`]s have a descriptor each, bitmaps and a
//! table of [`inode`]s; an inode's blocks are found through a tree of [`extent`]s (or, older, [`indirect`] blocks); [`directory`] blocks
//! hold names, with an [`htree`] index over them when there are many; [`xattr`]s sit behind the inode and in a block of their own.
//! [`allocate`] chooses blocks and inodes. All of this is [`Volume`]: plain data over the [`Store`](crate::jbd2) of metadata blocks,
//! without locks, that host tests mount and check with e2fsck.
//!
//! What connects it to the rest of the kernel: [`mount`] (options, the superblock as the VFS sees it, the journal's thread), [`node`]
//! (inodes and directories) and [`data`] (the pages of files: reading, delayed allocation and write-back).
//!
//! Lock order: a file's mapping lock -> commit lock -> volume lock. User memory is never touched under the volume lock.

mod acl;
mod allocate;
mod create;
mod data;
mod directory;
mod extent;
mod fallocate;
mod group;
mod hash;
mod htree;
mod indirect;
mod inode;
mod map;
pub mod mount;
mod node;
mod options;
mod orphan;
mod remove;
mod superblock;
mod symlink;
mod trim;
mod volume;
mod xattr;

#[cfg(test)]
mod tests;
