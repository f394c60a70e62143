//! Making processes and threads.

use crate::sys::{c, wait};
use crate::timing::each;
use std::ffi::CString;
use std::ptr::null;

fn fork(child: impl Fn()) {
    let pid = ok!(libc::fork());
    if pid == 0 {
        child();
        unsafe { libc::_exit(127) }
    }
    assert_eq!(wait(pid), 0, "the child's status");
}

pub(crate) fn fork_exit() -> f64 {
    each(|| fork(|| unsafe { libc::_exit(0) }))
}

/// Executes a program with these arguments, again and again.
fn execute(arguments: &[CString]) -> f64 {
    let mut pointers: Vec<_> = arguments.iter().map(|word| word.as_ptr()).collect();
    pointers.push(null());
    let environment = [null()];
    each(|| {
        fork(|| unsafe {
            libc::execve(pointers[0], pointers.as_ptr(), environment.as_ptr());
        });
    })
}

fn own_path() -> String {
    let path = std::env::current_exe().expect("our own path");
    path.to_str().expect("a path in UTF-8").to_owned()
}

pub(crate) fn fork_exec() -> f64 {
    execute(&[c(&own_path()), c("nothing")])
}

pub(crate) fn shell() -> f64 {
    execute(&[c("/bin/sh"), c("-c"), c(&format!("{} nothing", own_path()))])
}

pub(crate) fn thread() -> f64 {
    each(|| std::thread::spawn(|| ()).join().expect("a thread that ends"))
}
