//! System V shared memory.

use crate::sys::*;
use libc::{c_int, c_void};
use std::ptr::null;

/// A segment that goes with its owner.
struct Segment(c_int);

impl Drop for Segment {
    fn drop(&mut self) {
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

fn segment(size: usize) -> Segment {
    Segment(ok!(libc::shmget(libc::IPC_PRIVATE, size, 0o600)))
}

/// shmat(2): the address, or an error number.
fn attach_at(segment: &Segment, at: usize, flags: c_int) -> Result<*mut u8, c_int> {
    let at = unsafe { libc::shmat(segment.0, at as *const c_void, flags) };
    if at as isize == -1 { Err(errno()) } else { Ok(at.cast()) }
}

fn attach(segment: &Segment) -> *mut u8 {
    attach_at(segment, 0, 0).unwrap()
}

fn status(segment: &Segment) -> libc::shmid_ds {
    let mut ds = unsafe { std::mem::zeroed() };
    ok!(libc::shmctl(segment.0, libc::IPC_STAT, &mut ds));
    ds
}

cases! {
    fn processes_share_it() {
        let segment = segment(8192);
        let memory = attach(&segment);
        in_child(|| unsafe {
            let own = attach(&segment);
            assert_ne!(own, memory);
            own.add(5000).write_volatile(7);
            memory.write_volatile(9);
        });
        assert_eq!(unsafe { (memory.add(5000).read_volatile(), memory.read_volatile()) }, (7, 9));
    }

    fn attachments_are_counted() {
        let segment = segment(100);
        assert_eq!((status(&segment).shm_nattch, status(&segment).shm_segsz), (0, 100));
        let one = attach(&segment);
        let two = attach(&segment);
        assert_eq!(status(&segment).shm_nattch, 2);
        in_child(|| assert_eq!(status(&segment).shm_nattch, 4));
        assert_eq!(status(&segment).shm_nattch, 2);
        ok!(libc::shmdt(one.cast()));
        assert_eq!(status(&segment).shm_nattch, 1);
        err!(libc::shmdt(one.cast()), libc::EINVAL);
        ok!(libc::munmap(two.cast(), 4096));
        assert_eq!(status(&segment).shm_nattch, 0);
        assert_eq!(status(&segment).shm_cpid, std::process::id() as c_int);
    }

    fn a_removed_segment_lives_until_it_is_detached() {
        let segment = segment(4096);
        let memory = attach(&segment);
        ok!(libc::shmctl(segment.0, libc::IPC_RMID, std::ptr::null_mut()));
        assert_eq!(status(&segment).shm_perm.mode & 0o1000, 0o1000);
        unsafe { memory.write_volatile(1) };
        let again = attach(&segment);
        assert_eq!(unsafe { again.read_volatile() }, 1);
        ok!(libc::shmdt(memory.cast()));
        ok!(libc::shmdt(again.cast()));
        err!(libc::shmctl(segment.0, libc::IPC_STAT, [0u64; 20].as_mut_ptr().cast()), libc::EINVAL);
    }

    fn arguments_are_checked() {
        err!(libc::shmget(libc::IPC_PRIVATE, 0, 0o600), libc::EINVAL);
        let segment = segment(4096);
        assert_eq!(attach_at(&segment, 0x1234_5001, 0), Err(libc::EINVAL));
        assert_eq!(attach_at(&segment, 0, libc::SHM_REMAP), Err(libc::EINVAL));
        err!(libc::shmdt(null()), libc::EINVAL);
        err!(libc::shmctl(segment.0, 99, std::ptr::null_mut()), libc::EINVAL);
        let key = 0x5158_0000 | std::process::id() as c_int & 0xffff;
        let named = Segment(ok!(libc::shmget(key, 4096, 0o600 | libc::IPC_CREAT)));
        err!(libc::shmget(key, 4097, 0o600), libc::EINVAL);
        assert_eq!(ok!(libc::shmget(key, 0, 0)), named.0);
    }

    fn an_address_is_taken_only_if_it_is_free() {
        let segment = segment(4096);
        let memory = attach(&segment);
        assert_eq!(attach_at(&segment, memory as usize, 0), Err(libc::EINVAL));
        assert_eq!(attach_at(&segment, memory as usize, libc::SHM_REMAP), Ok(memory));
        ok!(libc::shmdt(memory.cast()));
        assert_eq!(attach_at(&segment, memory as usize + 17, libc::SHM_RND), Ok(memory));
    }

    fn read_only_attachments_can_not_be_written() {
        let segment = segment(4096);
        let memory = attach_at(&segment, 0, libc::SHM_RDONLY).unwrap();
        assert_eq!(unsafe { memory.read_volatile() }, 0);
        expect_signal(child(|| unsafe { memory.write_volatile(1); 0 }), libc::SIGSEGV);
        err!(libc::mprotect(memory.cast(), 4096, libc::PROT_READ | libc::PROT_WRITE), libc::EACCES);
    }

    fn detaching_takes_all_parts_that_are_left() {
        let segment = segment(4 * 4096);
        let memory = attach(&segment);
        ok!(libc::munmap(unsafe { memory.add(4096) }.cast(), 4096));
        assert_eq!(status(&segment).shm_nattch, 2);
        ok!(libc::shmdt(memory.cast()));
        assert_eq!(status(&segment).shm_nattch, 0);
    }

    fn maps_and_procfs_show_it() {
        let segment = segment(5000);
        let memory = attach(&segment);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.starts_with(&format!("{:x}-", memory as usize))).unwrap();
        assert!(line.contains("rw-s") && line.ends_with("/SYSV00000000 (deleted)"), "{line}");
        let text = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(&segment.0.to_string())).unwrap();
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!((fields[2], fields[3], fields[6]), ("600", "5000", "1"));
    }

    fn others_need_permission() {
        let segment = segment(4096);
        in_child(|| {
            become_nobody();
            assert_eq!(attach_at(&segment, 0, 0), Err(libc::EACCES));
            err!(libc::shmctl(segment.0, libc::IPC_RMID, std::ptr::null_mut()), libc::EPERM);
        });
    }

    fn exec_detaches() {
        let segment = segment(4096);
        attach(&segment);
        let reader = child(|| {
            let args = [c"true".as_ptr(), null()];
            ok!(libc::execv(c"/bin/true".as_ptr(), args.as_ptr()))
        });
        expect_exit(reader, 0);
        assert_eq!(status(&segment).shm_nattch, 1);
    }
}
