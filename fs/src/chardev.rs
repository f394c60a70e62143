//! Character devices: which driver has which numbers.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Result};
use hal::sync::SpinLock;

use crate::{DeviceNumber, File, FsContext, OpenFlags};

/// Opens a device of a driver.
pub trait CharDevice: Send + Sync {
    /// The object behind device `number`. `ENXIO`, `EBUSY`, `EIO`.
    fn open(&self, number: DeviceNumber, cx: &FsContext, flags: OpenFlags) -> Result<Arc<dyn File>>;
}

struct Driver {
    name: &'static str,
    last_minor: u32,
    device: Arc<dyn CharDevice>,
}

/// Keyed by major and first minor number.
static DRIVERS: SpinLock<BTreeMap<(u32, u32), Driver>> = SpinLock::new(BTreeMap::new());

/// Registers `device` for the minor numbers `first..=last` of `major`. `EBUSY` where they are taken.
pub fn register(name: &'static str, major: u32, first: u32, last: u32, device: Arc<dyn CharDevice>) -> Result<()> {
    let mut drivers = DRIVERS.lock();
    let before = drivers.range(..=(major, last)).next_back();
    if before.is_some_and(|((m, _), driver)| *m == major && driver.last_minor >= first) {
        return Err(Errno::EBUSY);
    }
    drivers.insert((major, first), Driver { name, last_minor: last, device });
    Ok(())
}

/// Registers a device that is the same object each time it is opened.
pub fn register_file(name: &'static str, number: DeviceNumber, file: Arc<dyn File>) -> Result<()> {
    register(name, number.major, number.minor, number.minor, Arc::new(Single(file)))
}

struct Single(Arc<dyn File>);

impl CharDevice for Single {
    fn open(&self, _number: DeviceNumber, _cx: &FsContext, _flags: OpenFlags) -> Result<Arc<dyn File>> {
        Ok(self.0.clone())
    }
}

/// A driver that is a function.
pub struct OpenWith(pub Box<dyn Fn(DeviceNumber, &FsContext, OpenFlags) -> Result<Arc<dyn File>> + Send + Sync>);

impl CharDevice for OpenWith {
    fn open(&self, number: DeviceNumber, cx: &FsContext, flags: OpenFlags) -> Result<Arc<dyn File>> {
        (self.0)(number, cx, flags)
    }
}

/// Opens a device. `ENXIO` where no driver has the number.
pub fn open(number: DeviceNumber, cx: &FsContext, flags: OpenFlags) -> Result<Arc<dyn File>> {
    let device = {
        let drivers = DRIVERS.lock();
        let key = (number.major, number.minor);
        let found = drivers.range(..=key).next_back();
        let fits = found.filter(|((major, _), driver)| *major == number.major && driver.last_minor >= number.minor);
        fits.map(|(_, driver)| driver.device.clone()).ok_or(Errno::ENXIO)?
    };
    device.open(number, cx, flags)
}

/// Major number and name of each driver, for `/proc/devices`.
pub fn list() -> Vec<(u32, &'static str)> {
    let mut list: Vec<_> = DRIVERS.lock().iter().map(|((major, _), driver)| (*major, driver.name)).collect();
    list.dedup();
    list
}
