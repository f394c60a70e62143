//! Models of the kernel's lock-free parts. Each is the kernel's own source file, included here with loom's atomics in place of the
//! processor's: loom then runs a small test in every order in which its threads, and the memory between them, can behave.
//!
//! What is under a plain lock has no model: the pipe's ring (which has a test of random steps in its crate), futex buckets, epoll's ready list
//! and io_uring's completions are changed with their lock held. Depends on nothing of the workspace but these files. Takes no lock.
#![cfg(test)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
}

#[path = "../../../sched/src/presence.rs"]
mod presence;
#[path = "../../../ipc/src/epoll/queued.rs"]
mod queued;
#[path = "../../../sched/src/rw_state.rs"]
mod rw_state;

use crate::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Either the waiter sees the condition before it sleeps, or the waker sees the waiter.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let presence = Arc::new(presence::Presence::new(AtomicUsize::new(0)));
        let condition = Arc::new(AtomicBool::new(false));
        let (theirs, told) = (presence.clone(), condition.clone());
        let waker = thread::spawn(move || {
            told.store(true, Ordering::Relaxed);
            theirs.anybody()
        });
        presence.arrive(1);
        let sleeps = !condition.load(Ordering::Relaxed);
        let wakes = waker.join().expect("the waker ends");
        assert!(!sleeps || wakes, "the waiter sleeps, and nobody wakes it");
    });
}

/// A writer is alone, and what it wrote is seen by who comes after.
#[test]
fn a_writer_is_alone() {
    loom::model(|| {
        let state = Arc::new(rw_state::RwState::new(AtomicUsize::new(0)));
        let value = Arc::new(AtomicUsize::new(0));
        let (theirs, written) = (state.clone(), value.clone());
        let writer = thread::spawn(move || {
            if theirs.take_write() {
                written.store(1, Ordering::Relaxed);
                written.store(2, Ordering::Relaxed);
                theirs.leave_write();
            }
        });
        if state.take_read() {
            assert_ne!(value.load(Ordering::Relaxed), 1, "a reader sees a writer at work");
            assert!(!state.take_write(), "a writer beside a reader");
            state.leave_read();
        }
        writer.join().expect("the writer ends");
        assert!(state.take_write(), "nobody holds it");
    });
}

/// A writer that waits gets the lock when the readers have left, and readers get it after.
#[test]
fn a_waiting_writer_holds_readers_off_and_lets_them_in_again() {
    loom::model(|| {
        let state = Arc::new(rw_state::RwState::new(AtomicUsize::new(0)));
        assert!(state.take_read());
        let theirs = state.clone();
        let reader = thread::spawn(move || {
            let taken = theirs.take_read();
            if taken {
                theirs.leave_read();
            }
        });
        assert!(!state.take_write());
        state.announce_writer();
        assert!(!state.take_read(), "new readers wait behind a writer");
        reader.join().expect("the reader ends");
        assert!(state.leave_read(), "the last reader tells the writer");
        assert!(state.take_write());
        state.leave_write();
        assert!(state.take_read());
    });
}

/// A file gets ready while a waiter takes the item off the list: the waiter sees it ready, or finds the item on the list again.
#[test]
fn no_news_of_a_watched_file_are_lost() {
    loom::model(|| {
        let queued = Arc::new(queued::Queued::new(AtomicBool::new(false)));
        let list = Arc::new(Mutex::new(0));
        let ready = Arc::new(AtomicBool::new(false));
        // The item is on the list for earlier news.
        assert!(queued.mark());
        *list.lock().expect("a lock") += 1;
        let (theirs, their_list, told) = (queued.clone(), list.clone(), ready.clone());
        let notifier = thread::spawn(move || {
            told.store(true, Ordering::Relaxed);
            if theirs.mark() {
                *their_list.lock().expect("a lock") += 1;
            }
        });
        *list.lock().expect("a lock") -= 1;
        queued.unmark();
        let seen = ready.load(Ordering::Relaxed);
        notifier.join().expect("the notifier ends");
        let left = *list.lock().expect("a lock");
        assert!(seen || left == 1, "ready, and on no list");
        assert!(left <= 1, "on the list twice");
    });
}
