//! The steps that ask pryamo and that tell it the end of a call.

use super::{Plan, Way};

/// What every question says; the caller's number and the rest may hold any sign.
const QUESTION: &str = "phone=${URIENCODE(${CALLERID(num)})}&trunk=${URIENCODE(${PRYAMO_DID})}\
    &callid=${URIENCODE(${CHANNEL(linkedid)})}&tried=${URIENCODE(${PRYAMO_TRIED})}\
    &status=${URIENCODE(${PRYAMO_STATUS})}";
/// What is told of the end.
const END: &str = "callid=${URIENCODE(${CHANNEL(linkedid)})}&number=${PRYAMO_RUNG}\
    &status=${URIENCODE(${PRYAMO_STATUS})}&rang=${PRYAMO_RANG}&talked=${PRYAMO_TALKED}";

/// Steps behind which `PRYAMO_NUMBER`, `PRYAMO_RING` and `PRYAMO_NAME` hold the answer, as it came.
pub(super) fn question(plan: &Plan) -> Vec<String> {
    let address = plan.address;
    let mut steps = vec!["MSet(PRYAMO_NUMBER=,PRYAMO_RING=,PRYAMO_NAME=)".to_owned()];
    match plan.way {
        Way::FastAgi => steps.push(format!("AGI(agi://{address}/forward?{QUESTION})")),
        Way::Curl => steps.extend([
            // Of an earlier question on this channel nothing may be left.
            "ClearHash(PRYAMO)".to_owned(),
            "Set(CURLOPT(conntimeout)=1)".to_owned(),
            "Set(CURLOPT(httptimeout)=3)".to_owned(),
            "Set(CURLOPT(hashcompat)=yes)".to_owned(),
            format!("Set(HASH(PRYAMO)=${{CURL(http://{address}/forward?{QUESTION})}})"),
            // Whatever else asks by CURL on this channel finds it as it was.
            "Set(CURLOPT(hashcompat)=no)".to_owned(),
            "Set(PRYAMO_NUMBER=${HASH(PRYAMO,number)})".to_owned(),
            "Set(PRYAMO_RING=${HASH(PRYAMO,ring)})".to_owned(),
            "Set(PRYAMO_NAME=${HASH(PRYAMO,name)})".to_owned(),
        ]),
    }
    steps
}

/// Steps that tell the end. The caller is gone: nobody waits for them.
pub(super) fn end(plan: &Plan) -> Vec<String> {
    let address = plan.address;
    match plan.way {
        Way::FastAgi => vec![format!("AGI(agi://{address}/ended?{END})")],
        Way::Curl => [
            "Set(CURLOPT(conntimeout)=1)".to_owned(),
            "Set(CURLOPT(httptimeout)=1)".to_owned(),
            format!("Set(PRYAMO_TOLD=${{CURL(http://{address}/ended?{END})}})"),
        ]
        .to_vec(),
    }
}
