//! `CDN-Cache-Control` (RFC 9213).

use http::HeaderName;
use larder_http::policy::Policy;

use crate::cache::{Cache, Fields, Origin, get, ok, private, shared};

const CC: &str = "cache-control";
const CDN: &str = "cdn-cache-control";

//= https://www.rfc-editor.org/rfc/rfc9213#section-2.2
//= type=test
//# it MUST ignore the Cache-Control and
//# Expires header fields in that response
#[test]
fn a_targeted_field_stands_for_cache_control_and_expires() {
    let rows: &[(&str, Fields<'_>, bool)] = &[
        ("cdn-max-age", &[(CDN, "max-age=3600")], true),
        ("cdn-max-age-max", &[(CDN, "max-age=2147483648")], true),
        ("cdn-max-age-max-plus", &[(CDN, "max-age=99999999999")], true),
        ("cdn-max-age-age", &[(CDN, "max-age=3600"), ("age", "7200"), ("date", "@0")], false),
        ("cdn-max-age-space-before-equals", &[(CC, "max-age=1"), (CDN, "max-age =100")], false),
        ("cdn-max-age-space-after-equals", &[(CC, "max-age=1"), (CDN, "max-age= 100")], false),
        ("cdn-max-age-0", &[(CDN, "max-age=0")], false),
        ("cdn-max-age-extension", &[(CDN, "foobar, max-age=3600")], true),
        ("cdn-max-age-case-insensitive", &[(CDN, "MaX-aGe=3600")], false),
        ("cdn-max-age-expires", &[(CDN, "max-age=3600"), ("expires", "@-10000"), ("date", "@0")], true),
        ("cdn-max-age-cc-max-age-invalid-expires", &[(CDN, "max-age=3600"), ("expires", "0")], true),
        ("cdn-max-age-0-expires", &[(CDN, "max-age=0"), ("expires", "@10000"), ("date", "@0")], false),
        ("cdn-max-age-short-cc-max-age", &[(CC, "max-age=1"), (CDN, "max-age=3600")], true),
        ("cdn-max-age-long-cc-max-age", &[(CC, "max-age=3600"), (CDN, "max-age=1")], false),
        ("cdn-private", &[(CDN, "private"), (CC, "max-age=10000"), ("expires", "@10000")], false),
        ("cdn-no-cache", &[(CDN, "no-cache"), (CC, "max-age=10000"), ("expires", "@10000")], false),
        ("cdn-no-store-cc-fresh", &[(CDN, "no-store"), (CC, "max-age=10000"), ("expires", "@10000")], false),
        ("cdn-fresh-cc-nostore", &[(CC, "no-store"), (CDN, "max-age=10000")], true),
        ("cdn-cc-invalid-sh-type-unknown", &[(CDN, "max-age=10000, &&&&&"), (CC, "no-store")], false),
        ("cdn-cc-invalid-sh-type-wrong", &[(CDN, "max-age=\"10000\""), (CC, "no-store")], false),
        ("a parse error leaves Cache-Control", &[(CDN, "max-age=1, &&&&&"), (CC, "max-age=3600")], true),
        ("an empty field leaves Cache-Control", &[(CDN, ""), (CC, "max-age=3600")], true),
        ("a wrong type displaces it", &[(CDN, "max-age=\"1\""), (CC, "max-age=3600")], false),
        ("and Expires", &[(CDN, "max-age=\"1\""), ("expires", "@3600")], false),
        ("without max-age, Expires does not count", &[(CDN, "foo"), ("expires", "@3600")], false),
    ];
    for (name, answer, expected) in rows {
        assert_eq!(shared().reuses(&get(&[]), ok(answer), 3, &get(&[])), *expected, "{name}");
    }
}

#[test]
fn a_targeted_field_is_passed_on_and_so_are_date_expires_and_age() {
    // cdn-remove-header, cdn-remove-age-exceed, cdn-date-update-exceed, cdn-expires-update-exceed.
    let mut cache = shared();
    let first = cache
        .ask(&get(&[]), ok(&[(CC, "max-age=1"), ("expires", "@1"), (CDN, "max-age=10000"), ("date", "@0")]));
    let got = cache.wait(3).again(&get(&[]));
    for name in [CDN, CC, "expires", "date"] {
        assert_eq!(got.field(name), first.field(name), "{name}");
    }
    assert_eq!(got.field("age"), Some("3"));
}

#[test]
fn who_is_not_targeted_does_not_look_and_the_first_of_the_list_counts() {
    let answer = [(CDN, "max-age=3600"), (CC, "no-store")];
    assert!(!private().reuses(&get(&[]), ok(&answer), 0, &get(&[])));
    let mut policy = Policy::shared();
    policy.targeted.insert(0, HeaderName::from_static("larder-cache-control"));
    let answer = [("larder-cache-control", "max-age=1"), answer[0]];
    assert!(!Cache::new(policy.clone()).reuses(&get(&[]), ok(&answer), 3, &get(&[])));
    let answer = [("larder-cache-control", "&"), answer[1]];
    assert!(Cache::new(policy).reuses(&get(&[]), ok(&answer), 3, &get(&[])));
}

#[test]
fn prohibitions_and_permissions_are_taken_from_the_targeted_field() {
    let mut cache = shared();
    cache.ask(&get(&[]), ok(&[(CDN, "max-age=1, must-revalidate"), ("etag", "\"a\"")]));
    assert_eq!(cache.wait(3).ask(&get(&[]), Origin::Disconnects).status, 502);
    let authorized = get(&[("authorization", "x")]);
    assert!(shared().reuses(&authorized, ok(&[(CDN, "max-age=60, public")]), 0, &get(&[])));
    assert!(!shared().reuses(&authorized, ok(&[(CDN, "max-age=60"), (CC, "public")]), 0, &get(&[])));
}
