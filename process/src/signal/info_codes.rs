//! The values of `si_code`.

/// `si_code`: sent by kill(2).
pub const SI_USER: i32 = 0;
/// `si_code`: sent by the kernel.
pub const SI_KERNEL: i32 = 0x80;
/// `si_code`: sent by sigqueue(3).
pub const SI_QUEUE: i32 = -1;
/// `si_code`: a POSIX timer expired.
pub const SI_TIMER: i32 = -2;
/// `si_code`: a message came to an empty queue (mq_notify(3)).
pub const SI_MESGQ: i32 = -3;
/// `si_code`: sent by tkill(2) or tgkill(2).
pub const SI_TKILL: i32 = -6;
/// `si_code` of SIGCHLD: it exited.
pub const CLD_EXITED: i32 = 1;
/// `si_code` of SIGCHLD: a signal killed it.
pub const CLD_KILLED: i32 = 2;
/// `si_code` of SIGCHLD: a signal killed it, with a core dump.
pub const CLD_DUMPED: i32 = 3;
/// `si_code` of SIGCHLD: a traced child stopped.
pub const CLD_TRAPPED: i32 = 4;
/// `si_code` of SIGCHLD: it stopped.
pub const CLD_STOPPED: i32 = 5;
/// `si_code` of SIGCHLD: it continued.
pub const CLD_CONTINUED: i32 = 6;

/// `si_code` and `si_status` of a process that ended with wait status `status`.
pub const fn of_status(status: i32) -> (i32, i32) {
    match status & 0x7f {
        0 => (CLD_EXITED, (status >> 8) & 0xff),
        signal if status & 0x80 != 0 => (CLD_DUMPED, signal),
        signal => (CLD_KILLED, signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_become_codes() {
        assert_eq!(of_status(7 << 8), (CLD_EXITED, 7));
        assert_eq!(of_status(9), (CLD_KILLED, 9));
        assert_eq!(of_status(11 | 0x80), (CLD_DUMPED, 11));
    }
}
