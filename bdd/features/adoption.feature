Feature: Adopted engine memory
  Memory that an engine allocated is sealed where it lies. Its owner is held until release, and given back on every failure.

  @RES-9 @DIG-3
  Scenario: An engine's memory is sealed and executed where it lies
    Given a manager
    And an engine candle that holds llama in regions of 1, 3000, 1023, 976 bytes
    When I adopt the memory of candle as llama
    Then the seal of llama speaks of the memory of candle
    # What the manager allocated itself is the check space; padding is virtual.
    And the driver counts the same bytes as the ledger
    When candle changes the bytes beside its regions
    And I execute llama
    Then the work read the memory of candle
    When I release llama
    Then used VRAM is zero

  @RES-9 @SEAL-9 @SEAL-1
  Scenario: An engine's memory is sealed only if it is what somebody vouched for
    Given a manager whose policy requires expected digests
    And weights poisoned that differ from llama in bit 0 of byte 4999
    And an engine candle that holds llama in regions of 70000 bytes
    And an engine burn that holds poisoned in regions of 70000 bytes
    When I adopt the memory of candle as llama, to be wiped, expecting the digest of llama
    Then the seal of llama says expected
    When I adopt the memory of burn as poisoned, to be wiped, expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    And burn has its memory back, untouched
    And the manager is ready

  @RES-9 @VER-4 @VER-5
  Scenario: An engine that writes to its memory is found, and its owner held while there is evidence
    Given a manager that quarantines only the shard
    And an engine candle that holds llama in regions of 2048, 2952 bytes
    When I adopt the memory of candle as llama
    And candle lets go of its handle
    And candle changes byte 4999 of its memory
    And I execute llama
    # The regions are whole blocks, so nothing is padded and the byte keeps its number.
    Then it is an integrity failure of llama that covers byte 4999
    And the work did not run
    And the memory of candle is held
    When I release llama
    Then the memory of candle is not held

  @RES-9
  Scenario: The owner is taken back after release and not before
    Given a manager
    And an engine candle that holds llama in regions of 5000 bytes
    When I adopt the memory of candle as llama
    Then candle cannot take its memory back
    When I begin an execution of llama
    And I release llama
    Then it fails with SHARD_BUSY
    When the execution finishes
    And I release llama
    Then candle can take its memory back
    And the memory of candle is untouched

  @RES-9 @SCR-1
  Scenario: An engine's memory is wiped on release where its owner allows that
    Given a manager
    And an engine candle that holds llama in regions of 1, 3000, 1999 bytes
    When I adopt the memory of candle as llama, to be wiped
    And I release llama
    Then the trail has, in this order: vram_wiped, vram_deallocated
    And exactly the regions of candle are zero
    And candle can take its memory back
