//! io_uring(7): the memory that a ring shares with its program, and what is registered with it.
//!
//! | file | what |
//! |---|---|
//! | `abi.rs` | numbers and structures, as `linux/io_uring.h` lays them out |
//! | `rings.rs` | the submission and completion rings in shared pages |
//! | `completion.rs` | posting completions, with those that did not fit |
//! | `buffers.rs` | provided buffers: lists of them, and rings in user memory |
//! | `resources.rs` | registered files and buffers, and the tags that tell when they are gone |
//!
//! What a request does is not known here: the table of operations is in `syscall`, next to the bodies of the calls that they are like.
//! The program may write anything anywhere into the shared pages at any time. So nothing that is read there is trusted: sizes and
//! masks are kept here, indices are masked, entries are copied once and then checked.

pub mod abi;
pub mod buffers;
pub mod completion;
pub mod resources;
pub mod rings;
