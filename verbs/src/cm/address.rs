//! Addresses, as C has them.

use std::net::SocketAddr;

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// The address in there, if it is one of IP.
pub(super) fn read(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let length = match i32::from(storage.ss_family) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    // SAFETY: `storage` is larger than `length`, and its family says how it is to be read.
    let address =
        unsafe { SockaddrStorage::from_raw(std::ptr::from_ref(storage).cast(), Some(length as u32)) }?;
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read_and_others_are_none() {
        for text in ["10.78.0.1:7", "[fd78::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let given = SockaddrStorage::from(address);
            // SAFETY: all zeroes is an address of no family.
            let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
            assert_eq!(read(&storage), None);
            // SAFETY: both are live, and `given` is not longer than `storage`.
            unsafe {
                let to = std::ptr::from_mut(&mut storage).cast::<u8>();
                std::ptr::copy_nonoverlapping(given.as_ptr().cast::<u8>(), to, given.len() as usize);
            }
            assert_eq!(read(&storage), Some(address));
        }
    }
}
