// What a guest in AssemblyScript imports: import { DecideCall, Parameters, fail } from "edge".

export * from "./abi";
export * from "./runtime";
export * from "./parameters";
