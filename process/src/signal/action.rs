//! What a process does on each signal: sigaction(2).

use hal::sync::SpinLock;

use super::*;

/// SA_NOCLDSTOP: no SIGCHLD when children stop.
pub(crate) const SA_NOCLDSTOP: u64 = 1;
/// SA_NOCLDWAIT: children don't become zombies.
pub const SA_NOCLDWAIT: u64 = 2;
/// SA_SIGINFO.
pub(crate) const SA_SIGINFO: u64 = 4;
/// SA_EXPOSE_TAGBITS: no effect on x86.
pub(crate) const SA_EXPOSE_TAGBITS: u64 = 0x800;
/// SA_RESTORER: the trampoline is given.
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;
/// SA_ONSTACK.
pub(crate) const SA_ONSTACK: u64 = 0x0800_0000;
/// SA_RESTART.
pub(crate) const SA_RESTART: u64 = 0x1000_0000;
/// SA_NODEFER.
pub(crate) const SA_NODEFER: u64 = 0x4000_0000;
/// SA_RESETHAND.
pub(crate) const SA_RESETHAND: u64 = 0x8000_0000;
/// The flags that Linux knows; others are cleared, so that a program can find out.
pub const SA_KNOWN: u64 = SA_NOCLDSTOP
    | SA_NOCLDWAIT
    | SA_SIGINFO
    | SA_EXPOSE_TAGBITS
    | SA_RESTORER
    | SA_ONSTACK
    | SA_RESTART
    | SA_NODEFER
    | SA_RESETHAND;

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// `struct kernel_sigaction`, as user space lays it out.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
pub struct Action {
    /// 0 default, 1 ignore, else the handler's address.
    pub handler: usize,
    /// SA_*.
    pub flags: u64,
    /// The trampoline that calls rt_sigreturn(2).
    pub restorer: usize,
    /// Blocked while the handler runs.
    pub mask: u64,
}

/// What a signal does by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Nothing.
    Ignore,
    /// Ends the process.
    Terminate,
    /// Ends the process, with a core dump.
    Core,
    /// Stops it.
    Stop,
    /// Continues it (done when it is sent).
    Continue,
}

impl Signal {
    /// The default action.
    pub const fn default_disposition(self) -> Disposition {
        match self {
            SIGCHLD | SIGURG | SIGWINCH => Disposition::Ignore,
            SIGCONT => Disposition::Continue,
            SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => Disposition::Stop,
            SIGQUIT | SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGXCPU | SIGXFSZ | SIGSYS => {
                Disposition::Core
            }
            _ => Disposition::Terminate,
        }
    }
}

impl Action {
    /// The default action.
    pub const DEFAULT: Action = Action { handler: SIG_DFL, flags: 0, restorer: 0, mask: 0 };

    /// Is it SIG_DFL?
    pub const fn is_default(&self) -> bool {
        self.handler == SIG_DFL
    }

    /// Is it SIG_IGN?
    pub const fn is_ignore(&self) -> bool {
        self.handler == SIG_IGN
    }

    /// Would `signal` be thrown away under this action (ignored, or ignored by default)?
    pub const fn discards(&self, signal: Signal) -> bool {
        self.is_ignore()
            || self.is_default() && matches!(signal.default_disposition(), Disposition::Ignore | Disposition::Continue)
    }
}

/// The actions for all signals. Threads share them, and so do processes made with CLONE_SIGHAND.
pub struct Actions(SpinLock<[Action; MAX_SIGNAL as usize]>);

impl Actions {
    /// All default.
    pub const fn new() -> Actions {
        Actions(SpinLock::new([Action::DEFAULT; MAX_SIGNAL as usize]))
    }

    /// A copy, for fork.
    pub fn duplicate(&self) -> Actions {
        Actions(SpinLock::new(*self.0.lock_irq()))
    }

    /// The action for `signal`.
    pub fn get(&self, signal: Signal) -> Action {
        self.0.lock_irq()[signal.index()]
    }

    /// Sets it and gives the old one.
    pub fn set(&self, signal: Signal, action: Action) -> Action {
        core::mem::replace(&mut self.0.lock_irq()[signal.index()], action)
    }

    /// What exec does: handlers go back to the default, ignored signals stay ignored. With `all` (CLONE_CLEAR_SIGHAND) flags and masks
    /// are cleared in the same way.
    pub fn reset_handlers(&self) {
        for action in self.0.lock_irq().iter_mut() {
            *action = Action { handler: if action.is_ignore() { SIG_IGN } else { SIG_DFL }, ..Action::DEFAULT };
        }
    }

    /// The signals that are ignored and those that are caught, for `/proc/PID/status`.
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for (index, action) in self.0.lock_irq().iter().enumerate() {
            if action.is_ignore() {
                ignored.0 |= 1 << index;
            } else if !action.is_default() {
                caught.0 |= 1 << index;
            }
        }
        (ignored, caught)
    }
}

impl Default for Actions {
    fn default() -> Self {
        Actions::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_dispositions_decide_what_is_discarded() {
        assert!(Action::DEFAULT.discards(SIGCHLD));
        assert!(Action::DEFAULT.discards(SIGCONT));
        assert!(!Action::DEFAULT.discards(SIGTERM));
        assert!(!Action::DEFAULT.discards(SIGTSTP));
        let ignore = Action { handler: SIG_IGN, ..Action::DEFAULT };
        assert!(ignore.discards(SIGTERM));
    }

    #[test]
    fn exec_keeps_ignored_signals_and_drops_handlers() {
        let actions = Actions::new();
        actions.set(SIGINT, Action { handler: SIG_IGN, ..Action::DEFAULT });
        actions.set(SIGTERM, Action { handler: 0x1000, flags: SA_RESTART, restorer: 1, mask: 2 });
        actions.reset_handlers();
        assert!(actions.get(SIGINT).is_ignore());
        assert!(actions.get(SIGTERM).is_default());
        assert_eq!(actions.get(SIGTERM).flags, 0);
    }
}
