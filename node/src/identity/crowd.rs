//! How many may be at the door at once: handshakes and connections of one address, connections of one identity, and of
//! all. It counts and nothing else; a place is given back when it is dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// One of a bounded number of places for a key.
pub(super) struct Place<K: Eq + Hash> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

/// The places that are taken, by key. Holds no more keys than places.
pub(super) struct Places<K> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Default for Places<K> {
    fn default() -> Places<K> {
        Places { taken: Arc::default() }
    }
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// A place, if fewer than `max` of this key are taken.
    pub(super) fn take(&self, key: K, max: usize) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key.clone()).or_default();
        if *count >= max {
            if *count == 0 {
                taken.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Place { taken: self.taken.clone(), key })
    }
}

/// What counts as one address: of IPv6 the network that one customer is given.
pub(super) fn address_of(ip: IpAddr) -> IpAddr {
    const CUSTOMER: u128 = !0 << 64;
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & CUSTOMER)),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Places::default();
        let (a, b) = (places.take("a", 2), places.take("a", 2));
        assert!(a.is_some() && b.is_some() && places.take("a", 2).is_none());
        assert!(places.take("b", 2).is_some(), "others have places of their own");
        drop(a);
        assert!(places.take("a", 2).is_some());
        drop(b);
        assert!(places.take("c", 0).is_none());
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is kept of those that left");
    }

    #[test]
    fn one_network_is_one_address() {
        let of = |text: &str| address_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
