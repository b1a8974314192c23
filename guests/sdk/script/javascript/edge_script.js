// What a policy in JavaScript builds on: JSON, and parameters that are checked.
//
//     const limit = { configure(parameters, names) {}, decide(record) { return {...} } };
//     export const { policy, state } = exported(limit);
//
// The object is made when the component is built, and its image is what each instance starts from.
// What `configure` throws refuses the deployment; what `decide` throws gives the frame its fail-safe.
// There is no clock, file, network or console. Math.random() is no chance: it starts the same anew.

// The parameters from the deployment. What was not asked for is refused after `configure`.
class Parameters {
  constructor(given) {
    if (typeof given !== "object" || given === null || Array.isArray(given))
      throw "parameters: expected an object";
    this.given = given;
    this.asked = new Set();
  }

  ask(name, initial) {
    this.asked.add(name);
    return Object.hasOwn(this.given, name) ? this.given[name] : initial;
  }

  number(name, initial, least, most) {
    const value = this.ask(name, initial);
    if (typeof value !== "number" || !(value >= least && value <= most))
      throw `parameters.${name}: expected a number ${least}..${most}`;
    return value;
  }

  whole(name, initial, least, most) {
    const value = this.ask(name, initial);
    if (!Number.isInteger(value) || value < least || value > most)
      throw `parameters.${name}: expected a whole number ${least}..${most}`;
    return value;
  }

  // A misspelt parameter must not be a silent default.
  close() {
    for (const name of Object.keys(this.given))
      if (!this.asked.has(name))
        throw `parameters.${name}: not a parameter of this guest; it has ${[...this.asked].sort().join(", ")}`;
  }
}

// The two interfaces that a component exports, over one policy: `configure`, `decide`, and where it
// remembers something `save` (a value that JSON can say) and `restore`.
export function exported(made) {
  return {
    policy: {
      configure(document) {
        const { parameters, ...names } = JSON.parse(document);
        const checked = new Parameters(parameters);
        made.configure(checked, names);
        checked.close();
      },
      decide(record) {
        return JSON.stringify(made.decide(JSON.parse(record)));
      },
    },
    state: {
      save() {
        return made.save ? JSON.stringify(made.save()) : "";
      },
      restore(text) {
        if (!made.restore) throw "this policy keeps no state";
        made.restore(JSON.parse(text));
      },
    },
  };
}
