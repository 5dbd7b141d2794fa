// A 12345 hotline files a case by its own work-order number, follows it, and gets the reply; and reads why a move was
// refused. The same story as in ../python/hotline_case.py.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const { parseArgs } = require("node:util");
const { connect, contract, problemOf, status } = require("./client");

const COUNTY = "220822000000";
const PARENT = `divisions/${COUNTY}`;
const ORDER = "2026112100777";

const step = (text) => console.log(`  ${text}`);

/** A day, Beijing time, as the contract writes it. */
function beijing(time) {
  const day = new Date(time.getTime() + 8 * 3600 * 1000);
  return { year: day.getUTCFullYear(), month: day.getUTCMonth() + 1, day: day.getUTCDate() };
}

/** A work order as a request for a new case. Its number makes a good request id: it is never used twice. */
function workOrder(number, title) {
  return {
    parent: PARENT,
    request_id: `12345-${number}`,
    case: {
      case_kind: "CASE_KIND_INCIDENT",
      category: "property_management",
      channel: "CASE_CHANNEL_HOTLINE_12345",
      division: COUNTY,
      received_on: beijing(new Date()),
      title,
      external_refs: [{ system: "12345", number }],
    },
  };
}

/** Wants a call to be refused with this code, and gives the details. */
async function refused(proto, code, call) {
  const error = await call.then(
    () => assert.fail("this should have been refused"),
    (error) => error,
  );
  const problem = problemOf(proto, error);
  assert.equal(problem.code, code, JSON.stringify(problem));
  return problem;
}

async function main({ proto, county, hotline, operator }) {
  const { CaseService } = contract(proto, "case_service");
  const cases = connect(CaseService, county, hotline);
  const desk = connect(CaseService, county, operator);

  const filed = await cases.CreateCase(workOrder(ORDER, "电梯停运"));
  assert.equal(filed.lifecycle.state, "CASE_STATE_REPORTED");
  step(`filed work order ${ORDER} as ${filed.name}`);
  const again = await cases.CreateCase(workOrder(ORDER, "电梯停运"));
  assert.deepEqual([again.name, again.etag], [filed.name, filed.etag]);
  step("the same request again gives the same case");

  const wrong = workOrder("2026112100778", "人数有误");
  wrong.case.involved_count = -1;
  const invalid = await refused(proto, status.INVALID_ARGUMENT, cases.CreateCase(wrong));
  step(`case.involved_count: ${invalid.fields["case.involved_count"]}`);

  const own = await refused(proto, status.PERMISSION_DENIED, cases.AcceptCase({ name: filed.name }));
  assert.equal(own.reason, "UNIT_NOT_GRANTED");
  step(`accepting is for unit ${own.metadata.unit} of ${own.metadata.division}, not for a hotline`);

  const early = { name: filed.name, outcome: { succeeded: true } };
  const illegal = await refused(proto, status.FAILED_PRECONDITION, desk.ConcludeCase(early));
  assert.equal(illegal.reason, "ILLEGAL_MOVE");
  assert.ok(illegal.metadata.legal_moves.split(",").includes("MOVE_ACCEPT"), illegal.metadata.legal_moves);
  step(`not concluded before it was accepted; legal are ${illegal.metadata.legal_moves}`);

  await desk.AcceptCase({ name: filed.name });
  await desk.ConcludeCase(early);
  await desk.ReplyCase({ name: filed.name, reply: { text: "电梯已于当日修复。" } });
  await desk.VerifyCase({ name: filed.name });
  const late = { case: { name: filed.name, etag: filed.etag, title: "迟到的更正" } };
  assert.equal((await refused(proto, status.ABORTED, cases.UpdateCase(late))).reason, "STALE");
  step("the county worked on it meanwhile: a write upon the old copy is refused");

  const found = await cases.ListCases({ parent: PARENT, external_number: { system: "12345", number: ORDER } });
  assert.equal(found.cases.length, 1);
  const [answered] = found.cases;
  assert.equal(answered.lifecycle.state, "CASE_STATE_VERIFIED");
  step(`found by the work-order number, with the reply: ${answered.reply.text}`);
  cases.close();
  desk.close();
}

// The same arguments as ../python/run.py takes; see scene.py there.
const names = ["county", "prefecture", "hotline", "court", "maker", "data-centre", "stranger", "operator", "proto"];
const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
options.proto.default = path.join(__dirname, "../../../proto");
console.log("hotline_case");
main(parseArgs({ options }).values).catch((error) => {
  console.error(error);
  process.exit(1);
});
