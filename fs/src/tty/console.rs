//! The console: the terminal that the first process gets.

use alloc::sync::Arc;

use hal::sync::Once;

use super::{Driver, Tty};
use crate::DeviceNumber;

static CONSOLE: Once<Arc<Tty>> = Once::new();

/// Makes the console out of a driver; what it types goes to [`Tty::input`]. Once, at boot: the same terminal afterwards.
pub fn install(driver: Arc<dyn Driver>) -> Arc<Tty> {
    CONSOLE.get_or_init(|| Tty::new(DeviceNumber::new(4, 64), false, driver)).clone()
}

/// The console.
pub fn tty() -> Option<Arc<Tty>> {
    CONSOLE.get().cloned()
}
