use super::*;
use backstop_core::TaskId;

fn slots(parallelism: u32, pools: &[(&str, u32)]) -> Arc<Slots> {
    let pools = pools.iter().map(|(name, size)| ((*name).to_owned(), Some(*size))).collect();
    Arc::new(Slots::new(SlotLimits { parallelism: Some(parallelism), pools }))
}

fn seat(slots: &Arc<Slots>, dag: &str, run: &str) -> SeatHandle {
    slots.seat(DagId::new(dag), RunId::new(run.to_owned()))
}

fn task(name: &str) -> InstanceId {
    InstanceId::single(TaskId::new(name))
}

impl SeatHandle {
    /// Without a session.
    fn take_slots(&self, instance: &InstanceId, pool: &str, slots: u32, priority: i64) -> Option<Permit> {
        self.take(instance, Asked { pool, slots, session: None, priority }).ok()
    }

    /// With one of a connection that has so many.
    fn take_session(&self, instance: &InstanceId, pool: &str, connection: &str, max: u32) -> Option<Permit> {
        self.take(instance, Asked { pool, slots: 1, session: Some(session(connection, max)), priority: 0 }).ok()
    }
}

fn session(connection: &str, max: u32) -> (ConnectionKey, u32) {
    (("project".into(), connection.to_owned()), max)
}

/// What was given to a seat and not taken yet.
fn given(slots: &Slots, seat: &SeatHandle) -> Vec<String> {
    let state = slots.state();
    state.seats[&seat.id].given.iter().map(|claim| claim.instance.to_string()).collect()
}

#[test]
fn a_free_slot_goes_to_the_dag_with_the_fewest() {
    let slots = slots(3, &[]);
    let (many, few) = (seat(&slots, "many", "1"), seat(&slots, "few", "2"));
    let mut held: Vec<_> = ["a", "b", "c"].map(|name| many.take_slots(&task(name), "p", 1, 0).unwrap()).into();
    assert!(many.take_slots(&task("d"), "p", 1, 100).is_none());
    assert!(few.take_slots(&task("x"), "p", 1, 0).is_none());
    held.pop();
    assert_eq!(given(&slots, &few), ["x"]);
    assert!(given(&slots, &many).is_empty());
    // What is kept for one is not taken by another who comes by.
    assert!(many.take_slots(&task("d"), "p", 1, 100).is_none());
    let x = few.take_slots(&task("x"), "p", 1, 0).unwrap();
    held.pop();
    assert_eq!(given(&slots, &many), ["d"]);
    drop(x);
    assert_eq!(slots.used(), 2);
}

#[test]
fn within_a_dag_priority_goes_first_and_then_who_asked_first() {
    let slots = slots(1, &[]);
    let seat = seat(&slots, "d", "1");
    let held = seat.take_slots(&task("a"), "p", 1, 0).unwrap();
    for (name, priority) in [("low", 1), ("first", 5), ("second", 5)] {
        assert!(seat.take_slots(&task(name), "p", 1, priority).is_none());
    }
    drop(held);
    assert_eq!(given(&slots, &seat), ["first"]);
    drop(seat.take_slots(&task("first"), "p", 1, 5));
    assert_eq!(given(&slots, &seat), ["second"]);
}

#[test]
fn a_pool_that_is_full_holds_up_only_its_own() {
    let slots = slots(10, &[("small", 2)]);
    let seat = seat(&slots, "d", "1");
    let held = seat.take_slots(&task("a"), "small", 2, 0).unwrap();
    assert!(seat.take_slots(&task("b"), "small", 1, 0).is_none());
    let _other = seat.take_slots(&task("c"), "else", 1, 0).unwrap();
    let shortage = slots.shortage(&RunId::new("1".to_owned()), &task("b")).unwrap();
    assert_eq!((shortage.pool.as_deref(), shortage.used, shortage.size, shortage.wanted), (Some("small"), 2, 2, 1));
    assert_eq!(shortage.holders.iter().map(|claim| claim.instance.to_string()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(slots.shortage(&RunId::new("1".to_owned()), &task("c")), None);
    drop(held);
    assert_eq!(given(&slots, &seat), ["b"]);
    let pools = slots.pools();
    assert_eq!(pools.iter().map(|pool| (pool.name.as_str(), pool.used)).collect::<Vec<_>>(), [("else", 1), ("small", 1)]);
}

#[test]
fn one_that_wants_more_than_its_pool_has_goes_when_the_pool_is_empty() {
    let slots = slots(10, &[("small", 2)]);
    let seat = seat(&slots, "d", "1");
    let held = seat.take_slots(&task("a"), "small", 1, 0).unwrap();
    assert!(seat.take_slots(&task("big"), "small", 5, 0).is_none());
    drop(held);
    assert!(seat.take_slots(&task("big"), "small", 5, 0).is_some());
}

#[test]
fn what_is_wanted_no_more_goes_to_others() {
    let slots = slots(1, &[]);
    let (first, second) = (seat(&slots, "a", "1"), seat(&slots, "b", "2"));
    let held = first.take_slots(&task("x"), "p", 1, 0).unwrap();
    assert!(second.take_slots(&task("y"), "p", 1, 0).is_none());
    assert!(first.take_slots(&task("z"), "p", 1, 0).is_none());
    drop(held);
    // Both hold none; `y` asked first.
    assert_eq!(given(&slots, &second), ["y"]);
    second.still_wants(|_| false);
    assert_eq!(given(&slots, &first), ["z"]);
    drop(first);
    assert_eq!(slots.used(), 0);
}

#[test]
fn limits_may_change_under_those_who_wait() {
    let slots = slots(1, &[]);
    let seat = seat(&slots, "a", "1");
    let _held = seat.take_slots(&task("x"), "p", 1, 0).unwrap();
    assert!(seat.take_slots(&task("y"), "p", 1, 0).is_none());
    slots.set_limits(SlotLimits { parallelism: Some(2), ..SlotLimits::default() });
    assert_eq!(given(&slots, &seat), ["y"]);
}

/// Whatever is asked, taken and given back in whatever order: never more than the limits, and nobody waits for what is free.
#[test]
fn limits_hold_and_nothing_free_is_waited_for() {
    let mut seed = 7_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    let slots = slots(4, &[("p0", 2), ("p1", 3)]);
    let seats: Vec<_> = (0..5).map(|n| seat(&slots, ["a", "b"][n % 2], &n.to_string())).collect();
    let mut permits = Vec::new();
    for step in 0..20_000 {
        let seat = &seats[random(seats.len())];
        match random(40) {
            0..20 => {
                let wanted = task(&random(6).to_string());
                let is_held = slots.state().held.contains_key(&(seat.run.clone(), wanted.clone()));
                let is_given = slots.state().seats[&seat.id].given.iter().any(|claim| claim.instance == wanted);
                if !is_held || is_given {
                    let session = [None, Some(session("db", 2))][random(2)].clone();
                    let (pool, priority) = (["p0", "p1"][random(2)], random(3) as i64);
                    permits.extend(seat.take(&wanted, Asked { pool, slots: 1 + random(2) as u32, session, priority }));
                }
            }
            20..39 if !permits.is_empty() => drop(permits.swap_remove(random(permits.len()))),
            _ => seat.still_wants(|_| random_bit(step)),
        }
        let state = slots.state();
        assert!(state.used <= 4 && state.pools.iter().all(|(name, used)| *used <= if &**name == "p0" { 2 } else { 3 }));
        let with_session = state.held.values().filter(|(_, claim)| claim.session.is_some()).count();
        assert!(with_session <= 2);
        assert!(
            state.seats.values().flat_map(|seat| seat.wants.iter().map(move |want| (seat, want))).all(|(seat, want)| {
                state.missing(&want.claim).is_some()
                    || goes_before(&state.kept_for(), &want.claim, state.rank(seat, want.order, &want.claim))
            }),
            "step {step}"
        );
    }
}

fn random_bit(step: u32) -> bool {
    step.is_multiple_of(3)
}

/// Small claims come and go without end, and there is always room for one of them but never for the large one.
#[test]
fn a_large_claim_is_not_passed_for_ever() {
    let limits = SlotLimits { parallelism: None, pools: [("loads".to_owned(), Some(2))].into() };
    let slots = Arc::new(Slots::new(limits));
    let seat = |run: &str| slots.seat(DagId::new(run), RunId::new(run));
    let one = |task: &str| InstanceId::single(TaskId::new(task));
    let (large, small, other) = (seat("large"), seat("small"), seat("other"));
    let mut going = small.take_slots(&one("0"), "loads", 1, 1);
    assert!(going.is_some());
    assert!(large.take_slots(&one("big"), "loads", 2, 1).is_none());
    let mut passed = 0;
    // Each time another small one begins before the last has ended.
    while let Some(next) = if passed % 2 == 0 { &other } else { &small }.take_slots(&one(&passed.to_string()), "loads", 1, 1) {
        going = Some(next);
        passed += 1;
        assert!(passed <= 100, "it is passed for ever");
    }
    assert!(passed >= 1, "at first those that fit go");
    let waits = slots.shortage(&RunId::new("other"), &one(&passed.to_string()));
    let waits = waits.or_else(|| slots.shortage(&RunId::new("small"), &one(&passed.to_string()))).unwrap();
    assert!(waits.to_string().contains("kept for one that was passed often"), "{waits}");
    drop(going);
    assert!(large.take_slots(&one("big"), "loads", 2, 1).is_some());
}

/// A database that is away, or has no session left, holds up what works on it, and not all others of the pool.
#[test]
fn a_pool_is_kept_for_nobody_whose_connection_is_full() {
    let slots = slots(10, &[("loads", 3)]);
    let (many, small) = (seat(&slots, "many", "1"), seat(&slots, "small", "2"));
    let _held = many.take_session(&task("held"), "loads", "db", 1).unwrap();
    for (name, slots) in [("wide", 2), ("next", 1)] {
        let asked = Asked { pool: "loads", slots, session: Some(session("db", 1)), priority: 100 };
        assert!(many.take(&task(name), asked).is_err());
    }
    for round in 0..10 * PASSED_MAX {
        let other = small.take_session(&task(&round.to_string()), "loads", "else", 4);
        assert!(other.is_some(), "round {round}: {:?}", slots.shortage(&RunId::new("2"), &task(&round.to_string())));
    }
}

#[test]
fn an_attempt_that_falls_into_doubt_keeps_the_slots_of_its_pool_and_no_place_over_all_runs() {
    let slots = slots(1, &[("one", 1)]);
    let (lost, other) = (seat(&slots, "d", "1"), seat(&slots, "e", "2"));
    let claim = Keeps { instance: task("a"), pool: "one".into(), slots: 1, session: None };
    lost.take_slots(&task("a"), "one", 1, 0).unwrap().falls_into_doubt();
    assert_eq!((slots.used(), slots.pools()[0].used), (0, 1));
    assert!(other.take_slots(&task("b"), "one", 1, 0).is_none());
    let shortage = slots.shortage(&RunId::new("2".to_owned()), &task("b")).unwrap();
    let told = "held by `a` of run 1; 1 of them in doubt, whose statements may still run on the server";
    assert!(shortage.to_string().contains(told), "{shortage}");
    lost.keep_for_doubts(vec![claim]);
    assert_eq!(slots.pools()[0].used, 1, "the same slot, and not another one");
    let elsewhere = other.take_slots(&task("c"), "two", 1, 0).unwrap();
    drop(elsewhere);
    assert!(given(&slots, &other).is_empty());
    lost.keep_only(|_| false);
    assert_eq!(given(&slots, &other), ["b"]);
}

#[test]
fn what_an_earlier_process_left_keeps_slots_until_its_run_says_what_is_in_doubt() {
    let slots = slots(4, &[("one", 1)]);
    let claim = |name: &str| Keeps { instance: task(name), pool: "one".into(), slots: 1, session: None };
    let run = RunId::new("1".to_owned());
    // More than there are, when the pool was made smaller meanwhile.
    slots.keep_for_doubts(&run, vec![claim("a"), claim("b"), claim("a")]);
    assert_eq!(slots.pools()[0].used, 2);
    let (left, other) = (seat(&slots, "d", "1"), seat(&slots, "e", "2"));
    assert!(other.take_slots(&task("x"), "one", 1, 0).is_none());
    left.keep_only(|instance| *instance == task("b"));
    assert_eq!(slots.pools()[0].used, 1);
    drop(left);
    assert!(given(&slots, &other).is_empty(), "the run is let go with its doubt");
    slots.keep_only(&RunId::new("1".to_owned()), |_| false);
    assert_eq!(given(&slots, &other), ["x"]);
}

#[test]
fn who_waits_for_a_session_holds_nothing_else() {
    let slots = slots(3, &[("p", 2)]);
    let (one, other) = (seat(&slots, "d", "1"), seat(&slots, "e", "2"));
    let held = one.take_session(&task("a"), "p", "db", 1).unwrap();
    assert!(one.take_session(&task("b"), "p", "db", 1).is_none() && one.take_session(&task("c"), "p", "db", 1).is_none());
    assert_eq!((slots.used(), slots.pools()[0].used), (1, 1));
    let told = slots.shortage(&RunId::new("1"), &task("b")).unwrap();
    assert_eq!((told.connection.as_deref(), told.used, told.size, told.wanted, told.waiting), (Some("db"), 1, 1, 1, 2));
    let sentence = "it waits for a session of connection `db`: 1 of 1 in use by `a` of run 1; it goes next";
    assert_eq!(told.to_string(), sentence);
    // Another connection, and one of the same name in another project.
    let elsewhere = other.take_session(&task("x"), "p", "else", 1).unwrap();
    let asked = Asked { pool: "q", slots: 1, session: Some((("clone".into(), "db".into()), 1)), priority: 0 };
    let _cloned = other.take(&task("y"), asked).unwrap();
    drop(elsewhere);
    drop(held);
    assert_eq!(given(&slots, &one), ["b"]);
    drop(one.take_session(&task("b"), "p", "db", 1));
    assert_eq!(given(&slots, &one), ["c"]);
}

#[test]
fn an_attempt_in_doubt_keeps_its_session_from_others_that_begin() {
    let slots = slots(8, &[]);
    let (lost, other) = (seat(&slots, "d", "1"), seat(&slots, "e", "2"));
    lost.take_session(&task("a"), "p", "db", 2).unwrap().falls_into_doubt();
    let _beside = other.take_session(&task("x"), "p", "db", 2).unwrap();
    assert!(other.take_session(&task("y"), "p", "db", 2).is_none());
    let told = slots.shortage(&RunId::new("2"), &task("y")).unwrap().to_string();
    let in_doubt = "2 of 2 in use by `x` of run 2, `a` of run 1; 1 of them in doubt: its statement may still run on the server";
    assert!(told.contains(in_doubt), "{told}");
    let doubt = Keeps { instance: task("a"), pool: "p".into(), slots: 1, session: Some(session("db", 2)) };
    lost.keep_for_doubts(vec![doubt]);
    lost.keep_only(|_| false);
    assert_eq!(given(&slots, &other), ["y"]);
}
