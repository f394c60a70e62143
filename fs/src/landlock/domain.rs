//! What a thread is restricted by.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Cred, Errno, Landlocked, Result};

use super::ruleset::Ruleset;
use super::{KINDS, LAYERS_MAX, Rights, rights};
use crate::Inode;

/// For each right, the layers that have not granted it yet: bit n is layer n.
pub(super) type Masks = [u16; KINDS];

/// The rulesets that a thread restricted itself by, in this order. Never changed: a further restriction makes another.
pub struct Domain {
    /// What it was made from, by one layer less.
    parent: Option<Arc<Domain>>,
    /// What each layer is about.
    layers: Vec<Rights>,
    /// By the address of the inode: the inode, which stays as long as the domain, and what layers grant below it.
    rules: BTreeMap<usize, Rule>,
}

#[derive(Clone)]
struct Rule {
    inode: Arc<Inode>,
    /// Layer and rights.
    grants: Vec<(u8, Rights)>,
}

/// landlock_restrict_self(2): `cred` with one more layer. `E2BIG` (16 there are), `ENOMEM`.
pub fn restrict(cred: &Cred, ruleset: &Ruleset) -> Result<Cred> {
    let parent = of(cred);
    let mut layers = parent.as_ref().map_or_else(Vec::new, |domain| domain.layers.clone());
    if layers.len() >= LAYERS_MAX {
        return Err(Errno::E2BIG);
    }
    let level = layers.len() as u8;
    layers.push(ruleset.handled);
    let count = ruleset.rules.lock().len() + parent.as_ref().map_or(0, |domain| domain.rules.len());
    if !fits_in_memory(count) {
        return Err(Errno::ENOMEM);
    }
    let mut rules = parent.as_ref().map_or_else(BTreeMap::new, |domain| domain.rules.clone());
    for (&key, (inode, granted)) in ruleset.rules.lock().iter() {
        let rule = rules.entry(key).or_insert_with(|| Rule { inode: inode.clone(), grants: Vec::new() });
        rule.grants.push((level, *granted));
    }
    let domain = Domain { parent, layers, rules };
    Ok(Cred { landlock: Some(Landlocked(Arc::new(domain))), ..cred.clone() })
}

/// Is there memory for so many rules? They are as many as a program likes.
pub(super) fn fits_in_memory(rules: usize) -> bool {
    const COST: u64 = 256;
    rules as u64 * COST < mm::frames::stats().free / 2
}

/// The domain of who has these credentials.
pub(super) fn of(cred: &Cred) -> Option<Arc<Domain>> {
    cred.landlock.as_ref()?.0.clone().downcast().ok()
}

/// May a thread with the credentials `tracer` look into one with `target`? Only into its own domain and those made from it. `EPERM`.
pub fn may_trace(tracer: &Cred, target: &Cred) -> Result<()> {
    let Some(mine) = of(tracer) else { return Ok(()) };
    let theirs = of(target);
    let mut ancestors = core::iter::successors(theirs.as_ref(), |domain| domain.parent.as_ref());
    if ancestors.any(|domain| Arc::ptr_eq(domain, &mine)) { Ok(()) } else { Err(Errno::EPERM) }
}

impl Domain {
    /// The layers that are about each of these rights; the rights that any is about.
    pub(super) fn masks(&self, wanted: Rights) -> (Rights, Masks) {
        let (mut handled, mut masks) = (0, [0; KINDS]);
        for (level, about) in self.layers.iter().enumerate() {
            let about = (about | rights::ALWAYS_DENIED) & wanted;
            handled |= about;
            for (kind, mask) in masks.iter_mut().enumerate() {
                *mask |= u16::from(about & 1 << kind != 0) << level;
            }
        }
        (handled, masks)
    }

    /// Takes out of `masks` the layers that grant rights below this file; true if all of `wanted` are granted by all layers now.
    pub(super) fn grant(&self, inode: &Arc<Inode>, wanted: Rights, masks: &mut Masks) -> bool {
        if wanted == 0 {
            return true;
        }
        let Some(rule) = self.rules.get(&Arc::as_ptr(inode).addr()) else { return false };
        debug_assert!(Arc::ptr_eq(&rule.inode, inode));
        for &(level, granted) in &rule.grants {
            for (kind, mask) in masks.iter_mut().enumerate() {
                if granted & wanted & 1 << kind != 0 {
                    *mask &= !(1 << level);
                }
            }
        }
        is_granted(wanted, masks)
    }
}

/// Do all layers grant all of these rights?
pub(super) fn is_granted(wanted: Rights, masks: &Masks) -> bool {
    masks.iter().enumerate().all(|(kind, mask)| wanted & 1 << kind == 0 || *mask == 0)
}
