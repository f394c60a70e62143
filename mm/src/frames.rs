//! The frame allocator: a buddy system with per-CPU magazines, behind [`hal::frame::FrameSource`].

/// Memory figures for `/proc/meminfo` and sysinfo(2), in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct MemoryStats {
    /// All that the kernel manages.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// In page caches (shmem included).
    pub cached: u64,
    /// In tmpfs and shared anonymous memory.
    pub shmem: u64,
    /// Anonymous, mapped.
    pub anonymous: u64,
    /// In the kernel heap's slabs.
    pub slab: u64,
    /// In page tables.
    pub page_tables: u64,
    /// In kernel stacks.
    pub kernel_stacks: u64,
}

/// The figures now.
pub fn stats() -> MemoryStats {
    todo!()
}

/// Free blocks per order (0 to 10), for `/proc/buddyinfo`.
pub fn free_blocks() -> [usize; 11] {
    todo!()
}

/// Sets the buddy allocator up over the memory that hal has left. Once, at boot.
pub fn init() {
    todo!()
}
