//! The user's terminal: raw while the guest has its own, and always put back.

use protocol::WindowSize;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::IsTerminal;
use std::sync::Mutex;

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// True if both standard input and output are a terminal.
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The terminal's size.
pub fn size() -> WindowSize {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => WindowSize { rows: size.ws_row, columns: size.ws_col },
        _ => WindowSize { rows: 24, columns: 80 },
    }
}

/// Raw mode, until dropped.
pub struct Raw(());

impl Raw {
    /// Switches to raw mode. A panic puts the terminal back too.
    pub fn enter() -> std::io::Result<Raw> {
        let saved = tcgetattr(stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        if let Ok(mut place) = SAVED.lock() {
            *place = Some(saved);
        }
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            show(panic);
        }));
        Ok(Raw(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// True while the terminal is raw, where a line's end needs a carriage return too.
pub fn is_raw() -> bool {
    SAVED.lock().is_ok_and(|saved| saved.is_some())
}

/// Puts the terminal back as it was before [`Raw::enter`].
fn restore() {
    if let Ok(mut saved) = SAVED.lock()
        && let Some(saved) = saved.take()
    {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &saved);
    }
}
