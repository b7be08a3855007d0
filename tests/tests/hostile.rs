//! Subscribers that do what they must not, beside healthy ones that must not notice: each a process, their
//! descriptors and frames counted from outside.

use pagecast_tests::scene::Scene;

const PEER: &str = env!("CARGO_BIN_EXE_pagecast-peer");

/// What may come of an attack.
enum Outcome {
    /// The attacker says this.
    Says(&'static str),
    /// It is still there, and this is known of it.
    Stays,
}

/// Lets one attacker loose, and sees to it that the healthy lose nothing and nothing is left over.
fn attack(kind: &str, outcome: &Outcome) {
    let mut scene = Scene::new(PEER, 2, &[]);
    scene.publish(20);
    let before = scene.fds();
    let faults = scene.info().publisher.faults;
    let attacker = scene.join(&["hostile", &format!("kind={kind}")]);
    let said = scene.publish_until(&attacker, "attacked");
    scene.publish(60);
    match outcome {
        Outcome::Says(expected) => assert_eq!(&said, expected),
        Outcome::Stays => assert_eq!(scene.info().subscribers.len(), 3, "it was cut off"),
    }
    let info = scene.info();
    assert!(info.publisher.pool_total <= info.publisher.pool_limit, "{info:?}");
    if said == "Some(Fault)" {
        assert_eq!(info.publisher.faults, faults + 1);
    }
    drop(attacker);
    scene.settles(&before);
    scene.publish(20);
    let info = scene.info();
    assert_eq!(info.subscribers.iter().map(|subscriber| subscriber.dropped).sum::<u64>(), 0, "{info:?}");
}

macro_rules! attacks {
    ($($name:ident: $kind:literal => $outcome:expr;)*) => {
        $(#[test] fn $name() { attack($kind, &$outcome); })*
    };
}

const CUT: Outcome = Outcome::Says("Some(Fault)");

attacks! {
    returning_twice_cuts_off: "return-twice" => CUT;
    returning_what_never_was_cuts_off: "return-unknown" => CUT;
    returning_what_is_not_yet_its_own_cuts_off: "return-not-sent" => CUT;
    seeing_more_than_was_announced_cuts_off: "seen-too-many" => CUT;
    seeing_less_than_before_cuts_off: "seen-backwards" => CUT;
    a_second_hello_cuts_off: "hello-twice" => CUT;
    a_question_that_is_not_its_own_cuts_off: "query" => CUT;
    noise_cuts_off: "random" => CUT;
    too_many_records_cut_off: "record-count" => CUT;
    too_many_returns_cut_off: "return-count" => CUT;
    a_body_past_the_packet_cuts_off: "body-length" => CUT;
    an_unknown_message_cuts_off: "unknown-kind" => CUT;
    a_packet_over_the_limit_cuts_off: "too-long" => CUT;
    more_descriptors_than_any_message_has_cut_off: "many-fds" => CUT;
    packets_cut_short_cut_off: "truncated" => Outcome::Says("each");
    hellos_that_cannot_be_are_refused: "hellos" => Outcome::Says("Some(Version)");
    descriptors_sent_to_a_publisher_are_closed: "fds" => Outcome::Stays;
    returns_of_another_life_do_not_count: "wrong-epoch" => Outcome::Stays;
    half_a_link_is_none: "half-closed" => Outcome::Says("cut");
    five_hundred_that_say_nothing_are_borne: "idle" => Outcome::Says("done");
    coming_and_going_is_borne: "storm" => Outcome::Says("done");
    a_flood_of_large_requests_is_borne: "flood-requests" => Outcome::Stays;
    a_flood_of_small_requests_is_borne: "flood-small" => Outcome::Stays;
    a_flood_of_another_life_is_borne: "flood-old-epoch" => Outcome::Stays;
    a_flood_of_questions_is_borne: "flood-queries" => Outcome::Says("done");
}

#[test]
fn five_hundred_that_say_nothing_do_not_keep_others_out() {
    let mut scene = Scene::new(PEER, 2, &[]);
    let attacker = scene.join(&["hostile", "kind=idle"]);
    attacker.expect("attacked");
    let fds = scene.fds();
    assert!(fds.others < 200, "descriptors of strangers are bounded: {fds:?}");
    let newcomer = scene.join(&["subscriber"]);
    newcomer.expect("connected");
    // It gets what the others get.
    scene.healthy.push(newcomer);
    scene.publish(20);
}

#[test]
fn who_returns_nothing_gets_no_more_than_its_credits() {
    let mut scene = Scene::new(PEER, 2, &[]);
    let hoarder = scene.join(&["subscriber", "hold=1000"]);
    hoarder.expect("connected");
    scene.publish(400);
    let info = scene.info();
    let hoarding = &info.subscribers[2];
    assert_eq!(hoarding.held, hoarding.credits as usize);
    assert!(hoarding.dropped > 300, "it was served on: {hoarding:?}");
    assert_eq!(info.subscribers[0].dropped + info.subscribers[1].dropped, 0);
}

/// The negative control: without the check of returns, who returns twice stays.
#[test]
fn without_the_check_of_returns_this_suite_fails() {
    let mut scene = Scene::with_fault(PEER, 2, &[], "skip-return-check");
    let attacker = scene.join(&["hostile", "kind=return-twice"]);
    scene.publish_until(&attacker, "struck");
    scene.publish(40);
    assert_eq!(scene.info().publisher.faults, 0);
    assert_eq!(scene.info().subscribers.len(), 3);
    assert!(!attacker.has_said("attacked"), "it was cut off all the same");
}
