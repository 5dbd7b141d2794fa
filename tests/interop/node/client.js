// How a partner system connects to a Guantong node from Node.js, and how it reads what the node refuses.
//
// Copy this file and the folder proto/. It needs @grpc/grpc-js, @grpc/proto-loader and protobufjs.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

// Every call ends within half a minute. A node that cannot be reached for a moment is asked again: with a request id,
// which every write takes, that is safe.
const AGAIN = {
  maxAttempts: 4,
  initialBackoff: "0.5s",
  maxBackoff: "10s",
  backoffMultiplier: 3,
  retryableStatusCodes: ["UNAVAILABLE"],
};
const MANNERS = { methodConfig: [{ name: [{}], timeout: { seconds: 30, nanos: 0 }, retryPolicy: AGAIN }] };

/** The services of the contract, from the folder proto/. Fields keep the names that they have there. */
function contract(proto, ...files) {
  const options = { includeDirs: [proto], keepCase: true, enums: String, longs: String, defaults: false };
  const found = protoLoader.loadSync(files.map((file) => `guantong/v1/${file}.proto`), options);
  return grpc.loadPackageDefinition(found).guantong.v1;
}

/**
 * A client of one service at `host:port`, with the certificate that `guantong pki issue partner` wrote into a folder.
 * Both sides show a certificate. The node's must name the host that is dialled: nothing here overrides that.
 */
function connect(Service, address, folder) {
  const read = (name) => fs.readFileSync(path.join(folder, name));
  const credentials = grpc.credentials.createSsl(
    read("authority.pem"),
    read("key.pem"),
    read("certificate.pem"),
  );
  const client = new Service(address, credentials, { "grpc.service_config": JSON.stringify(MANNERS) });
  const calls = { close: () => client.close() };
  for (const name of Object.keys(Service.service)) {
    calls[name] = promisify(client[name]).bind(client);
  }
  return calls;
}

/** Reads an error: its code and text, and the details of Google's API guide that come with it. */
function problemOf(proto, error) {
  const root = new protobuf.Root();
  root.resolvePath = (_, target) => (fs.existsSync(path.join(proto, target)) ? path.join(proto, target) : target);
  root.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"], { keepCase: true });
  const problem = { code: error.code, message: error.details, reason: "", metadata: {}, fields: {} };
  for (const bytes of error.metadata.get("grpc-status-details-bin")) {
    for (const detail of root.lookupType("google.rpc.Status").decode(bytes).details) {
      const type = root.lookupType(detail.type_url.split("/").pop());
      const read = type.toObject(type.decode(detail.value));
      if (type.name === "ErrorInfo") {
        Object.assign(problem, { reason: read.reason, metadata: read.metadata ?? {} });
      } else if (type.name === "BadRequest") {
        for (const { field, description } of read.field_violations) problem.fields[field] = description;
      }
    }
  }
  return problem;
}

module.exports = { connect, contract, problemOf, status: grpc.status };
