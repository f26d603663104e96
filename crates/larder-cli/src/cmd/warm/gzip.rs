//! Lists and sitemaps that were compressed: nothing comes out that is larger than may be. Pure.

use std::io::Read as _;

use flate2::bufread::MultiGzDecoder;

/// What gzip begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// How often something may be compressed: a compressed file that was compressed again on its way.
const LAYERS_MAX: usize = 2;

/// These bytes, if they are not compressed with gzip; else what they were before.
///
/// # Errors
/// They are damaged, or come to more than so many bytes.
pub(super) fn unpacked(mut bytes: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, String> {
    for _ in 0..LAYERS_MAX {
        if !bytes.starts_with(&MAGIC) {
            break;
        }
        let mut plain = Vec::new();
        // One more, to see whether there is more.
        MultiGzDecoder::new(&*bytes)
            .take(bytes_max as u64 + 1)
            .read_to_end(&mut plain)
            .map_err(|error| format!("it is compressed with gzip, and damaged: {error}"))?;
        if plain.len() > bytes_max {
            return Err(format!("it is compressed, and comes to more than {bytes_max} bytes"));
        }
        bytes = plain;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_comes_out_as_it_was() {
        assert_eq!(unpacked(b"http://a/".to_vec(), 100).unwrap(), b"http://a/");
        assert_eq!(unpacked(packed(b"http://a/"), 100).unwrap(), b"http://a/");
        assert_eq!(unpacked(packed(&packed(b"http://a/")), 100).unwrap(), b"http://a/");
        // Several, one after the other, are one.
        assert_eq!(
            unpacked([packed(b"http://a/\n"), packed(b"http://b/")].concat(), 100).unwrap(),
            b"http://a/\nhttp://b/"
        );
        assert_eq!(unpacked(packed(b""), 0).unwrap(), b"");
    }

    #[test]
    fn nothing_comes_out_that_is_larger_than_may_be() {
        let bomb = packed(&vec![b' '; 10 << 20]);
        assert!(bomb.len() < 100_000);
        let said = unpacked(bomb.clone(), (10 << 20) - 1).unwrap_err();
        assert!(said.contains("more than 10485759 bytes"), "{said}");
        assert_eq!(unpacked(bomb, 10 << 20).unwrap().len(), 10 << 20);
        let twice = packed(&packed(&vec![b' '; 10 << 20]));
        assert!(unpacked(twice, 1 << 20).is_err());
    }

    #[test]
    fn what_is_cut_off_or_changed_is_damaged() {
        let whole = packed(b"http://a/1\nhttp://a/2\n");
        for end in 2..whole.len() {
            assert!(unpacked(whole[..end].to_vec(), 100).unwrap_err().contains("damaged"), "cut at {end}");
        }
        let mut changed = whole.clone();
        let at = whole.len() - 6;
        changed[at] ^= 1;
        assert!(unpacked(changed, 100).unwrap_err().contains("damaged"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpacked([&MAGIC[..], &[8], &bytes].concat(), 10_000);
        }
    }
}
