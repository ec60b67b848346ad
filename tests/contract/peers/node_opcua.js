// An OPC UA server that is not asyncua: node-opcua with a handful of nodes in memory. Lines of JSON on stdin are the PLC program's writes.
"use strict";
const { OPCUAServer } = require("node-opcua-server");
const { Variant, VariantArrayType, DataType } = require("node-opcua-variant");
const { StatusCodes } = require("node-opcua-status-code");

const readline = require("node:readline");
const [port, certificates] = process.argv.slice(2);
const kinds = { Trigger: "Boolean", Acknowledge: "Boolean", Part: "UInt32", Name: "String", Encoder: "Int64",
                Valid: "Boolean", Accept: "Boolean", Count: "Byte", Severity: "Double", Id: "Int32", Fixed: "Boolean" };
const outputs = new Set(["Valid", "Accept", "Count", "Severity", "Id"]);
const memory = { Name: "" };

function variant(name) {
  const kind = kinds[name];
  const zero = kind === "Boolean" ? false : kind === "Int64" ? [0, 0] : 0;
  return new Variant({ dataType: DataType[kind], arrayType: VariantArrayType.Scalar, value: memory[name] ?? zero });
}

(async () => {
  const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
  const manager = new OPCUACertificateManager({ rootFolder: certificates, automaticallyAcceptUnknownCertificate: false });
  await manager.initialize();
  const server = new OPCUAServer({ port: Number(port), hostname: "127.0.0.1", resourcePath: "", serverCertificateManager: manager,
                                   serverCapabilities: { minSupportedSampleRate: 0, operationLimits: { maxNodesPerRead: 5, maxNodesPerWrite: 3 } } });
  await server.initialize();
  const space = server.engine.addressSpace.getOwnNamespace();
  const nodes = {};
  for (const name of Object.keys(kinds)) {
    nodes[name] = space.addVariable({ organizedBy: server.engine.addressSpace.rootFolder.objects, browseName: name,
      nodeId: `s=${name}`, dataType: kinds[name], minimumSamplingInterval: 0,
      accessLevel: outputs.has(name) ? "CurrentRead | CurrentWrite" : "CurrentRead",
      userAccessLevel: outputs.has(name) ? "CurrentRead | CurrentWrite" : "CurrentRead" });
    nodes[name].setValueFromSource(variant(name), StatusCodes.Good);
  }
  await server.start();
  console.log(JSON.stringify({ index: space.index }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { set, get } = JSON.parse(line);
    const now = new Date();
    for (const [name, value] of Object.entries(set ?? {})) {
      memory[name] = value;
      nodes[name].setValueFromSource(variant(name), StatusCodes.Good, now);
    }
    const told = {};
    for (const name of get ?? []) told[name] = nodes[name].readValue().value.value;
    console.log(JSON.stringify(told));
  }
  await server.shutdown(0);
})();
