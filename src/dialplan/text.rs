//! Writes the contexts.
//!
//! No pattern fits `h`, `i` or `t`: there a caller who hung up would make Asterisk ask again. What a
//! caller or an answer may hold stands in conditions by its length only: a quote in it would break
//! them.

use std::fmt::Write as _;

use super::ask;
use super::{BEGIN, END, Exchange, Plan, Subroutines};

/// The patterns by which a context is entered with the number dialled.
const ENTRIES: [&str; 3] = ["s", "_X", "_[+*#0-9a-zA-Z]."];
/// Rings whose length the answer does not say.
const RING_SECONDS: u64 = 20;

/// A step: its label, if it has one, and what it does.
type Step = (&'static str, String);

/// The whole text, between its marks.
pub fn write(plan: &Plan) -> String {
    let mut text = format!("{BEGIN}\n");
    text.push_str(&head(plan));
    for entry in ENTRIES {
        if entry == "s" {
            text.push_str("\n[pryamo]\n");
        }
        // Entered by Gosub(pryamo,s,1(NUMBER)) the number dialled is the argument.
        let dialled = if entry == "s" { "${ARG1}" } else { "${EXTEN}" };
        let call = format!("Gosub(pryamo-call,s,1({dialled}))");
        steps(
            &mut text,
            entry,
            &[("", call), ("", "Goto(pryamo-back,s,1)".to_owned())],
        );
    }
    text.push_str(
        "\n; A call that came by Gosub (FreePBX: Return = Yes) goes back there.\n[pryamo-back]\n",
    );
    steps(&mut text, "s", &back(plan));
    if plan.with_vendors && !plan.standard.is_empty() {
        text.push_str(
            "\n; For routes that lead to the vendor page's context.\n[itgrix-transfer]\n",
        );
        for entry in ENTRIES {
            steps(
                &mut text,
                entry,
                &[("", "Goto(pryamo,${EXTEN},1)".to_owned())],
            );
        }
    }
    text.push_str(
        "\n; Rings one after the other; returns if nobody takes the call.\n[pryamo-call]\n",
    );
    steps(&mut text, "s", &call(plan));
    text.push_str("\n; Asks whom to ring; an answer that is not whole is none.\n[pryamo-ask]\n");
    steps(&mut text, "s", &asked(plan));
    text.push_str("\n; The call has ended: tells what became of the number that was being rung.\n[pryamo-ended]\n");
    steps(&mut text, "s", &ended(plan));
    let _ = writeln!(text, "{END}");
    text
}

fn head(plan: &Plan) -> String {
    let how = match plan.exchange {
        Exchange::Asterisk => {
            "; Where the greeting would begin: Gosub(pryamo,${EXTEN},1); nobody takes the call: it goes\n\
             ; on behind that line. Or Goto(pryamo,${EXTEN},1): it goes on at `asterisk.standard`.\n"
        }
        Exchange::FreePbx(_) => {
            "; Admin > Custom Destinations: Target pryamo,s,1  Return Yes  Destination: where a call goes\n\
             ; that nobody takes. Then choose it in Connectivity > Inbound Routes.\n"
        }
    };
    format!(
        "; Made by `pryamo dialplan`, which overwrites it. Asks {}.\n{how}",
        plan.address
    )
}

/// Writes an extension.
fn steps(text: &mut String, extension: &str, steps: &[Step]) {
    for (index, (label, does)) in steps.iter().enumerate() {
        let label = match *label {
            "" => String::new(),
            label => format!("({label})"),
        };
        // Writing into a string does not fail.
        let _ = match index {
            0 => writeln!(text, "exten => {extension},1{label},{does}"),
            _ => writeln!(text, " same => n{label},{does}"),
        };
    }
}

fn step(does: &str) -> Step {
    ("", does.to_owned())
}

fn labelled(label: &'static str, does: &str) -> Step {
    (label, does.to_owned())
}

fn back(plan: &Plan) -> Vec<Step> {
    let came_by_gosub = step("GotoIf($[${LEN(${STACK_PEEK(1,l,1)})} > 0]?return)");
    let onwards = match plan.standard.as_str() {
        "" => vec![
            step(
                "Log(ERROR,pryamo: enter by Gosub or set asterisk.standard - nobody takes this call and there is nowhere to go on)",
            ),
            step("Congestion(10)"),
            step("Hangup()"),
        ],
        standard => vec![step(&format!(
            "Goto({})",
            standard.replace("${EXTEN}", "${PRYAMO_DID}")
        ))],
    };
    let mut all = vec![came_by_gosub];
    all.extend(onwards);
    all.push(labelled("return", "Return()"));
    all
}

/// The loop: ask, ring, ask again.
fn call(plan: &Plan) -> Vec<Step> {
    let rounds = plan.rounds;
    let mut all = vec![
        step("Set(PRYAMO_DID=${ARG1})"),
        step("MSet(PRYAMO_TRIED=,PRYAMO_STATUS=,PRYAMO_ROUND=0)"),
        step("GotoIf($[${LEN(${PRYAMO_DID})} > 0]?ask)"),
        step("Set(PRYAMO_DID=${FROM_DID})"),
        step("GotoIf($[${LEN(${PRYAMO_DID})} > 0]?ask)"),
        step("Set(PRYAMO_DID=s)"),
        labelled("ask", "Gosub(pryamo-ask,s,1)"),
        // An empty name must not wipe out what the trunk sent.
        step("GotoIf($[${LEN(${PRYAMO_NAME})} = 0]?unnamed)"),
        step("Set(CALLERID(name)=${PRYAMO_NAME})"),
    ];
    if let Exchange::FreePbx(_) = plan.exchange {
        // What FreePBX's reports show.
        all.push(step("Set(CDR(cnam)=${PRYAMO_NAME})"));
    }
    all.extend([
        labelled("unnamed", "GotoIf($[${LEN(${PRYAMO_NUMBER})} = 0]?back)"),
        // Whatever is answered, no call goes round for ever.
        step(&format!("GotoIf($[${{PRYAMO_ROUND}} >= {rounds}]?back)")),
        step("Set(PRYAMO_ROUND=$[${PRYAMO_ROUND} + 1])"),
        step("Set(PRYAMO_TRIED=${PRYAMO_TRIED},${PRYAMO_NUMBER})"),
    ]);
    all.extend(known(plan));
    all.extend([step("Set(PRYAMO_STATUS=CHANUNAVAIL)"), step("Goto(ask)")]);
    all.extend(ring(plan));
    all.push(labelled("back", "Return()"));
    all
}

/// Goes to `ring` or `group` for a number that is there; anything else is not dialled.
fn known(plan: &Plan) -> Vec<Step> {
    let there = |context: &str, label: &str| {
        step(&format!(
            "GotoIf($[${{DIALPLAN_EXISTS({context},${{PRYAMO_NUMBER}},1)}} = 1]?{label})"
        ))
    };
    match plan.exchange {
        Exchange::Asterisk => vec![there(&plan.internal, "ring")],
        Exchange::FreePbx(_) => {
            let mut all = vec![
                step("GotoIf($[${DB_EXISTS(AMPUSER/${PRYAMO_NUMBER}/device)} = 1]?ring)"),
                there("ext-group", "group"),
                there("ext-queues", "group"),
            ];
            // The employees' context also knows outbound routes, at the company's cost.
            if plan.outside {
                all.push(there(&plan.internal, "group"));
            }
            all
        }
    }
}

fn ring(plan: &Plan) -> Vec<Step> {
    let internal = &plan.internal;
    let dial = |options: &str| {
        format!("Dial(Local/${{PRYAMO_NUMBER}}@{internal}/n,${{PRYAMO_RING}}{options})")
    };
    let rung = "MSet(PRYAMO_RUNG=${PRYAMO_NUMBER},PRYAMO_SINCE=${EPOCH})";
    let mut all = match plan.exchange {
        Exchange::Asterisk => vec![labelled("ring", rung)],
        Exchange::FreePbx(_) => vec![
            labelled("group", "Set(PRYAMO_GROUP=1)"),
            step("Goto(begin)"),
            labelled("ring", "Set(PRYAMO_GROUP=)"),
            labelled("begin", rung),
        ],
    };
    all.extend([
        // Pushed once: what others push above it meanwhile must not be taken for ours.
        step("GotoIf($[${LEN(${PRYAMO_WATCHED})} > 0]?watched)"),
        step("Set(PRYAMO_WATCHED=1)"),
        step("Set(CHANNEL(hangup_handler_push)=pryamo-ended,s,1)"),
    ]);
    let after = [
        // An answered call ends in Dial as a rule; one that does not has had its talk.
        step("GotoIf($[\"${DIALSTATUS}\" = \"ANSWER\"]?over)"),
        step("Set(PRYAMO_STATUS=${DIALSTATUS})"),
        step("Set(PRYAMO_RUNG=)"),
    ];
    match plan.exchange {
        Exchange::Asterisk => {
            all.push(labelled("watched", &dial("")));
            all.extend(after);
        }
        Exchange::FreePbx(subroutines) => {
            // Honours do-not-disturb, forwards and call waiting, and never rings a mailbox.
            let dial_one = match subroutines {
                Subroutines::Gosub => {
                    "Gosub(macro-dial-one,s,1(${PRYAMO_RING},${DIAL_OPTIONS},${PRYAMO_NUMBER}))"
                }
                Subroutines::Macro => {
                    "Macro(dial-one,${PRYAMO_RING},${DIAL_OPTIONS},${PRYAMO_NUMBER})"
                }
            };
            all.extend([
                labelled("watched", "Set(CDR(cnum)=${CALLERID(num)})"),
                step("GotoIf($[${LEN(${PRYAMO_GROUP})} > 0]?dial)"),
                step("Gosub(sub-record-check,s,1(exten,${PRYAMO_NUMBER},dontcare))"),
                step(dial_one),
                step("Goto(rung)"),
                labelled("dial", &dial(",${DIAL_OPTIONS}")),
                labelled("rung", "NoOp(pryamo: ${PRYAMO_NUMBER} ${DIALSTATUS})"),
            ]);
            all.extend(after);
            all.extend([
                step("GotoIf($[${LEN(${PRYAMO_GROUP})} > 0]?ask)"),
                step("Gosub(sub-record-cancel,s,1())"),
                step("Set(__EXTTOCALL=)"),
                step("Set(__PICKUPMARK=)"),
            ]);
        }
    }
    all.push(step("Goto(ask)"));
    all.push(labelled("over", "Hangup()"));
    all
}

fn asked(plan: &Plan) -> Vec<Step> {
    let mut all: Vec<Step> = ask::question(plan)
        .into_iter()
        .map(|does| ("", does))
        .collect();
    let length = |of: &str| format!("${{LEN(${{{of}}})}}");
    let digits = |of: &str| format!("${{LEN(${{FILTER(0-9,${{{of}}})}})}}");
    let (ring, ring_digits) = (length("PRYAMO_RING"), digits("PRYAMO_RING"));
    let (number, number_digits) = (length("PRYAMO_NUMBER"), digits("PRYAMO_NUMBER"));
    all.extend([
        step(&format!(
            "GotoIf($[{ring} > 0 & {ring} < 4 & {ring_digits} = {ring}]?timed)"
        )),
        step(&format!("Set(PRYAMO_RING={RING_SECONDS})")),
        labelled(
            "timed",
            &format!("GotoIf($[{number_digits} = {number} & {number} < 21]?whole)"),
        ),
        step("Set(PRYAMO_NUMBER=)"),
        labelled("whole", "Return()"),
    ]);
    all
}

fn ended(plan: &Plan) -> Vec<Step> {
    let mut all = vec![
        step("GotoIf($[${LEN(${PRYAMO_RUNG})} = 0]?done)"),
        step("Set(PRYAMO_STATUS=${DIALSTATUS})"),
        step("GotoIf($[${LEN(${PRYAMO_STATUS})} > 0]?known)"),
        step("Set(PRYAMO_STATUS=CANCEL)"),
        labelled(
            "known",
            "Set(PRYAMO_TALKED=0${FILTER(0-9,${ANSWEREDTIME})})",
        ),
        step("Set(PRYAMO_TALKED=$[${PRYAMO_TALKED} + 0])"),
        step("Set(PRYAMO_RANG=$[${EPOCH} - ${PRYAMO_SINCE} - ${PRYAMO_TALKED}])"),
    ];
    all.extend(ask::end(plan).into_iter().map(|does| ("", does)));
    all.push(labelled("done", "Return()"));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::dialplan::Way;
    use crate::dialplan::reader::Dialplan;

    fn plans() -> Vec<Plan> {
        let exchanges = [
            Exchange::Asterisk,
            Exchange::FreePbx(Subroutines::Gosub),
            Exchange::FreePbx(Subroutines::Macro),
        ];
        let mut plans = Vec::new();
        for exchange in exchanges {
            for way in [Way::Curl, Way::FastAgi] {
                for (standard, outside) in [("", false), ("ivr-1,s,1", true)] {
                    plans.push(Plan {
                        exchange,
                        way,
                        address: ([127, 0, 0, 1], 8077).into(),
                        internal: "from-internal".to_owned(),
                        standard: standard.to_owned(),
                        rounds: 4,
                        outside,
                        with_vendors: true,
                    });
                }
            }
        }
        plans
    }

    #[test]
    fn no_dialplan_of_ours_has_a_danger() {
        for plan in plans() {
            let text = write(&plan);
            let read = Dialplan::of_text(Path::new("x"), &text);
            assert!(read.asking().contains("pryamo-ask"), "{text}");
            assert_eq!(read.dangers("from-internal"), [], "{text}");
            assert!(text.starts_with(BEGIN) && text.ends_with(&format!("{END}\n")));
        }
    }

    #[test]
    fn every_label_and_context_that_is_gone_to_is_there() {
        for plan in plans() {
            let text = write(&plan);
            let contexts: Vec<&str> = text.split("\n[").skip(1).collect();
            let names: BTreeSet<&str> = contexts
                .iter()
                .map(|context| context.split(']').next().unwrap())
                .collect();
            assert_eq!(names.len(), contexts.len(), "{text}");
            for context in contexts {
                let labels: BTreeSet<&str> = context
                    .lines()
                    .filter_map(|line| line.split_once(" same => n(")?.1.split(')').next())
                    .collect();
                for line in context.lines() {
                    let target = line
                        .split_once("]?")
                        .filter(|_| line.contains("GotoIf("))
                        .map(|(_, label)| label.trim_end_matches(')'));
                    let plain = line
                        .split_once(",Goto(")
                        .map(|(_, to)| to.trim_end_matches(')'));
                    for target in [target, plain].into_iter().flatten() {
                        match target.split_once(',') {
                            None => assert!(labels.contains(target), "{target}: {context}"),
                            Some((to, _)) => assert!(
                                names.contains(to) || plan.standard.starts_with(to),
                                "{target}: {text}"
                            ),
                        }
                    }
                    for own in line.split("Gosub(pryamo").skip(1) {
                        let name = format!("pryamo{}", own.split(',').next().unwrap());
                        // What the head tells the administrator is a comment.
                        assert!(names.contains(name.as_str()), "{name}: {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn outside_numbers_are_rung_only_where_they_may_be() {
        for plan in plans() {
            let text = write(&plan);
            let knows_routes = text.contains("DIALPLAN_EXISTS(from-internal,");
            let expected = plan.exchange == Exchange::Asterisk || plan.outside;
            assert_eq!(knows_routes, expected, "{text}");
            let has_vendors = text.contains("[itgrix-transfer]");
            assert_eq!(has_vendors, !plan.standard.is_empty(), "{text}");
        }
    }
}
