//! Threads: ids, shared state, locks, exit, thread-local storage.

use crate::sys::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;

fn tid() -> i32 {
    ok!(libc::syscall(libc::SYS_gettid)) as i32
}

cases! {
    fn a_thread_pointer_outside_the_user_half_is_refused() {
        const NON_CANONICAL: usize = 1 << 62;
        for base in [NON_CANONICAL, usize::MAX, 0x7fff_ffff_f000] {
            let flags = libc::CLONE_SETTLS | libc::SIGCHLD;
            // SAFETY: without CLONE_VM and with a stack of its own choosing (none), it is a fork, had it not to fail.
            let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, base) };
            if result == 0 {
                // SAFETY: the child has nothing to clean up.
                unsafe { libc::_exit(99) };
            }
            assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)), "{base:#x}");
        }
    }

    fn threads_share_memory_and_pid() {
        let own = std::process::id();
        let (pid, thread_id) = thread::spawn(|| (std::process::id(), tid())).join().unwrap();
        assert_eq!(pid, own);
        assert_ne!(thread_id, own as i32);
    }

    fn a_mutex_keeps_sixty_four_threads_apart() {
        let total = Arc::new(Mutex::new(0u64));
        let threads: Vec<_> = (0..64).map(|_| {
            let total = total.clone();
            thread::spawn(move || for _ in 0..200 { *total.lock().unwrap() += 1 })
        }).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*total.lock().unwrap(), 64 * 200);
    }

    fn a_condition_variable_wakes_its_waiters() {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let threads: Vec<_> = (0..8).map(|_| {
            let state = state.clone();
            thread::spawn(move || {
                let (lock, condition) = &*state;
                let mut ready = lock.lock().unwrap();
                while !*ready { ready = condition.wait(ready).unwrap(); }
            })
        }).collect();
        nap(10);
        *state.0.lock().unwrap() = true;
        state.1.notify_all();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn a_barrier_holds_until_the_last() {
        let barrier = Arc::new(Barrier::new(4));
        let before = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..4).map(|_| {
            let (barrier, before) = (barrier.clone(), before.clone());
            thread::spawn(move || { before.fetch_add(1, SeqCst); barrier.wait(); before.load(SeqCst) })
        }).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 4));
    }

    fn channels_carry_messages_in_order() {
        let (sender, receiver) = mpsc::sync_channel(1);
        let producer = thread::spawn(move || (0..500).for_each(|n| sender.send(n).unwrap()));
        assert!(receiver.iter().eq(0..500));
        producer.join().unwrap();
    }

    fn thread_local_storage_is_local() {
        thread_local! { static VALUE: Cell<u32> = const { Cell::new(1) }; }
        VALUE.set(2);
        assert_eq!(thread::spawn(|| { VALUE.set(VALUE.get() + 10); VALUE.get() }).join().unwrap(), 11);
        assert_eq!(VALUE.get(), 2);
    }

    fn floating_point_state_is_per_thread() {
        let threads: Vec<_> = (1..=4).map(|n| thread::spawn(move || {
            let mut x = f64::from(n);
            for _ in 0..200 { x = std::hint::black_box(x * 1.0 + 0.5); thread::yield_now(); }
            x
        })).collect();
        for (n, thread) in (1..=4).zip(threads) { assert_eq!(thread.join().unwrap(), f64::from(n) + 100.0); }
    }

    fn exit_group_ends_all_threads() {
        let pid = child(|| {
            for _ in 0..4 { thread::spawn(|| loop { nap(1000) }); }
            thread::spawn(|| unsafe { libc::_exit(19) });
            loop { nap(1000) }
        });
        expect_exit(pid, 19);
    }

    fn a_fatal_signal_ends_all_threads() {
        let pid = child(|| {
            for _ in 0..4 { thread::spawn(|| loop { std::hint::spin_loop() }); }
            loop { nap(1000) }
        });
        nap(20);
        ok!(libc::kill(pid, libc::SIGTERM));
        expect_signal(pid, libc::SIGTERM);
    }

    fn the_leader_may_leave_first() {
        let pid = child(|| {
            thread::spawn(|| { nap(50); unsafe { libc::_exit(23) } });
            unsafe { libc::syscall(libc::SYS_exit, 1) };
            unreachable!()
        });
        expect_exit(pid, 23);
    }

    fn fork_copies_only_the_calling_thread() {
        thread::spawn(|| loop { nap(1000) });
        let pid = child(|| std::fs::read_dir("/proc/self/task").unwrap().count() as i32);
        expect_exit(pid, 1);
    }

    fn proc_lists_the_threads() {
        let (sender, receiver) = mpsc::channel::<i32>();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || { sender.send(tid()).unwrap(); let _ = stopped.recv(); });
        let thread_id = receiver.recv().unwrap();
        let listed: Vec<String> = std::fs::read_dir("/proc/self/task").unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(listed.len(), 2);
        assert!(listed.contains(&thread_id.to_string()));
        drop(stop);
        thread.join().unwrap();
    }

    fn signals_for_a_thread_reach_that_thread() {
        extern "C" fn nothing(_: i32) {}
        handle(libc::SIGUSR1, nothing, 0);
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            sender.send(tid()).unwrap();
            err!(libc::poll(std::ptr::null_mut(), 0, 10_000), libc::EINTR);
        });
        let thread_id = receiver.recv().unwrap();
        until(|| {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/stat")).unwrap();
            stat.contains(") S ")
        });
        ok!(libc::syscall(libc::SYS_tgkill, std::process::id(), thread_id, libc::SIGUSR1));
        thread.join().unwrap();
    }

    fn a_process_signal_goes_to_a_thread_that_takes_it() {
        block(&[libc::SIGUSR1]);
        let thread = thread::spawn(|| {
            let mut signal = 0;
            ok!(libc::sigwait(&signals(&[libc::SIGUSR1]), &mut signal));
            signal
        });
        ok!(libc::kill(std::process::id() as i32, libc::SIGUSR1));
        assert_eq!(thread.join().unwrap(), libc::SIGUSR1);
    }

    fn many_short_threads() {
        for _ in 0..200 { thread::spawn(|| {}).join().unwrap(); }
    }

    fn thread_names_are_per_thread() {
        let name = thread::Builder::new().name("a-thread".into()).spawn(|| {
            std::fs::read_to_string(format!("/proc/self/task/{}/comm", tid())).unwrap()
        }).unwrap().join().unwrap();
        assert_eq!(name, "a-thread\n");
    }
}
